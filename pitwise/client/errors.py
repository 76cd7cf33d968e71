"""What a call of the client raises."""

from collections.abc import Mapping

from pitwise.errors import PitwiseError


class ClientError(PitwiseError):
    """Base of the client's errors."""


class UnreachableError(ClientError):
    """The service cannot be reached, or breaks off; the message says where and why."""


class AnswerError(ClientError):
    """An answer that this client cannot read: the service is of another version, or is another one."""


class ProblemError(ClientError):
    """The service answered with a problem document (RFC 9457).

    Args:
        type: such as `/problems/unknown-symbol`; it does not change, so branch on it. `about:blank`
            where what stands before the service answered, such as a proxy.
        status: of HTTP.
        detail: what is wrong with this request, and what to do.
        errors: a field, such as `bars[3].close`, to what is wrong with it.
        request_id: the service's log has it too.
    """

    def __init__(
        self,
        type: str,
        title: str,
        status: int,
        detail: str,
        errors: Mapping[str, str] | None = None,
        request_id: str = "",
    ):
        self.type, self.title, self.status, self.detail = type, title, status, detail
        self.errors = dict(errors or {})
        self.request_id = request_id
        named = "".join(f"; {field}: {what}" for field, what in list(self.errors.items())[:5])
        rest = f"; and {len(self.errors) - 5:,} more" if len(self.errors) > 5 else ""
        super().__init__(f"{status} {title}: {detail}{named}{rest} (request {request_id or 'unknown'})")

    @property
    def kind(self) -> str:
        """The last part of the type: `unknown-symbol`."""
        return self.type.rpartition("/")[2]
