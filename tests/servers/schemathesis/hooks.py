"""What the document cannot say to schemathesis."""

import json

import schemathesis

# Parameters of which one rules out the others. OpenAPI has no words for that.
EXCLUSIVE = {"prefix": ("from", "to"), "ttl": ("expires_at",)}


@schemathesis.hook
def map_case(context, case):
    query = case.query or {}
    for name, others in EXCLUSIVE.items():
        if name in query:
            for other in others:
                query.pop(other, None)
    return case


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """How a body of lines is written."""
    if isinstance(value, (bytes, str)):
        return value
    if isinstance(value, list):
        return "".join(json.dumps(line) + "\n" for line in value).encode()
    return json.dumps(value).encode()


@schemathesis.deserializer("application/octet-stream")
def value(context, response):
    """A value is any bytes: there is nothing to validate."""
    return None
