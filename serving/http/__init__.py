"""The HTTP service: `app` is the API, `server` its process, `build` what it is made of."""
