"""Values that a parser is seldom asked for, each as the text that stands for it in JSON or YAML.

As text, since some of them are none that Python could write: a number of 5000 digits, a list in a
list three thousand deep, a merge key. What puts them into a file is in `changes.py`.
"""

import json

DEEP = 3000
LONG = "x" * 20_000
ODD_TEXT = (
    "", " ", "\0", "\x1b[31mred\x1b[0m", "\ud800", "\udfff\ud800", "\u202egnp", "\ufeff", "é",
    "\U0001d7d9",
    "a\nb", "a\r\nb", "../../../etc/passwd", "/dev/null", "~", "C:\\", "<script>alert(1)</script>",
    "NaN", "Infinity", "-Infinity", "null", "true", "1e999", "0x10", "1_000", "s0", "s999", "s0.0",
    "none", "toy", "kjv", "text:", "text:x", "json:x", ":", "mla:", "==", "{}", "%s%n", "{0}", LONG,
    "key: [", "!!python/name:os.system", "float32", "cuda", "end_to_end", "embedding", "head",
)  # fmt: skip
WHOLE = (
    0, 1, -1, 2, 3, 7, 255, 256, 257, 65_537, 10**6, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 10**12,
    10**15, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, -(10**400),
)  # fmt: skip
BROKEN = (0.5, -0.5, 1e-320, 1e300, -1e300, 1.7976931348623157e308, 0.1, 1e-12, 1e15, -0.0, 1e22)
ODD_KEYS = (
    "",
    "kind",
    "name",
    "path",
    "=",
    ".",
    "a.b",
    "\0",
    "\ud800",
    "step",
    "stage",
    "__class__",
)

SCALARS = tuple(
    [json.dumps(text) for text in ODD_TEXT]
    + [str(number) for number in WHOLE]
    + [repr(number) for number in BROKEN]
    + ["true", "false", "null", "NaN", "Infinity", "-Infinity", "9" * 5000, "1e400", "-1e400"]
)
NESTED = (
    "[]", "{}", "[[]]", "[null]", "[{}]", '{"": null}', "[true]", "[0]", '["s0", "s0"]', '["s9"]',
    "[0.5, 0.25]", "[NaN]", "[1e300, 1e300]", '{"kind": null}', '{"kind": "mla"}', '{"name": []}',
    '{"stage": "x", "step": {}}', "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP,
    "[" + "1," * 2000 + "1]", '["x", 1, null, [], {}, true]', "[-1, -1]", f"[{2**63}]",
)  # fmt: skip
JSON = SCALARS + NESTED
YAML = (
    *(text for text in JSON if DEEP * "[" not in text and DEEP * '{"a":' not in text),
    "[" * 400 + "]" * 400,  # PyYAML takes most of a second for more
    "!!python/object/apply:os.system [id]", "!!binary aGVsbG8=", "!!set {a: null}", "!!int '7'",
    "!!float x", "!!timestamp 2001-12-14", "!unknown 1", "&a [*a]", "*nowhere", "&a [1, *a, *a]",
    "{<<: {a: 1}}", "2001-12-14", "2001-12-14t21:59:43.10-05:00", "9999-99-99", "010", "0o10",
    "0b101", "1:30", "190:20:30", "1_000", "+.inf", ".nan", "-.INF", "yes", "off", "~", "'", '"',
    "|\n  text", "> folded", "? a", "- a", "@a", "`a`", "%YAML 9.9", "--- a", "... ", "# gone",
    "{a: 1, a: 2}", "{1: 2}", "{[a]: b}", "{? {a: 1} : b}", "[a", "{a", "1e3", "1.e+3", 
    "0xFFFFFFFFFFFFFFFFFF",    "\t- tab", "\x85", "\u2028",
)  # fmt: skip
BYTES = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\x80", b"\r\n", b"\r",
    b"\n", b"\n\n", b"\t", b"\x1b", b"\x85", b"{", b"}", b"[", b"]", b'"', b":", b",", b"- ", b"&a",
    b"*a", b"<<: *a", b"!!", b"%", b"#", b"\\", b"\\ud800", b"\\u0000", b"NaN", b"1e999",
    b"9" * 5000,
    b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\x80" + b"\0" * 7, b"A" * 70_000, b"=", b"1:1",
)  # fmt: skip
