"""Values that careless code changes, loses, runs or cuts."""

from typing import Final

from squidmesh.domain.values import Json

TEXTS: Final = {
    "quotes": 'it\'s "quoted" `and` \\escaped\\ \\u0041',
    "statement": "'; drop table runs; -- %s ? :name $1 {0}",
    "emoji": "\N{CRAB}\N{ZERO WIDTH JOINER}\N{OCTOPUS} \N{REGIONAL INDICATOR SYMBOL LETTER P}",
    "right to left": "\u202eabc \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "not normalized": "e\u0301 \u00e9 \u1e9b\u0323 \ufb01",
    "white": " \t\r\n\x0b\x0c\x85\xa0\u2028\u2029\ufeff ",
    "controls": "\x01\x1b[31m\x7f\x9f",
    "edges": "\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "json": '{"type": null, "at": [1, 2.0]}',
    "": "",
    "long": "\N{GREEK SMALL LETTER LAMDA}" * (1024 * 1024 // 2),
}

NUMBERS: Final[list[Json]] = [
    0,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    1.0,
    -0.0,
    0.1,
    1e-300,
    1.7976931348623157e308,
    True,
    False,
    None,
]
