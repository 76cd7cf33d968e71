"""What every error of the API has in common."""

PROBLEM = "application/problem+json"


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document = response.json()
    assert (document["type"], document["status"]) == (f"/problems/{kind}", status)
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def fields(document: dict) -> list[str]:
    return [error["field"] for error in document["errors"]]
