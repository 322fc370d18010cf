"""Names that folders really have, and that look like something else to whoever takes a path for a URL."""

ODD_NAMES = [
    "läuft nicht? #2",
    "a%20b 100%",
    "fertig! [x] {y} *",
    "s3:",
    "a::b",
    "file:",
    "~",
    "c:\\temp",
    "q?a=1&b=2;c#d",
]
