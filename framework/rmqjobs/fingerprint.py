"""Fingerprints: equal failures get the same one, so that an operator reviews them in groups. Floor 1: pure.

A fingerprint is made of the error's class, the last frame of the application and the message without its variable parts;
never of the payload. The message may quote anything a user sent, so every pattern here runs in linear time.
"""

from __future__ import annotations

import hashlib
import re

from rmqjobs.failures import MAX_MESSAGE, MAX_TRACEBACK, OUR_FILES

_FRAME = re.compile(r'File "(?P<path>[^"]+)", line \d+, in (?P<function>\S+)')
# Standard library frames and ours say where an error surfaced, not whose it is.
_NOT_THE_APPLICATION = re.compile(rf"{re.escape(OUR_FILES)}|/lib/python[\d.]+/(?!site-packages|dist-packages)|<frozen ")
_VARIABLE_PARTS = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "<id>"),
    (re.compile(r"(?<![a-z])[a-z]+://\S+"), "<url>"),
    (re.compile(r"(?:/[\w.@+-]+){2,}/?"), "<path>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<text>"),
    (re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?"), "<n>"),
)


def fingerprint(error_type: str, message: str, traceback: str = "") -> str:
    """Twelve hex digits that are the same for failures of the same cause."""
    parts = (error_type, _application_frame(traceback[-MAX_TRACEBACK:]), normalised(message[:MAX_MESSAGE]))
    return hashlib.blake2b("\0".join(parts).encode(errors="backslashreplace"), digest_size=6).hexdigest()


def normalised(message: str) -> str:
    """The message with ids, URLs, paths, quoted text and numbers replaced by placeholders."""
    for pattern, placeholder in _VARIABLE_PARTS:
        message = pattern.sub(placeholder, message)
    return message


def _application_frame(traceback: str) -> str:
    frames = [(match["path"], match["function"]) for match in _FRAME.finditer(traceback)]
    ours = [frame for frame in frames if not _NOT_THE_APPLICATION.search(frame[0])] or frames
    if not ours:
        return ""
    path, function = ours[-1]
    return f"{path.rsplit('/', 1)[-1]}:{function}"
