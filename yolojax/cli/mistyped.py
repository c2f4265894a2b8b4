"""Wrong arguments in one line: what the parser says in a box of many, with the option that was meant."""

import difflib
import re
from collections.abc import Callable, Sequence

OTHER_NAMES = {
    "imgsz": "size",
    "img": "size",
    "img-size": "size",
    "weights": "model",
    "batch": "batch-size",
    "lr0": "learning-rate",
    "conf": "confidence",
    "project": "out",
    "name": "out",
    "save-dir": "out",
    "amp": "compute",
}
"""What other tools call an option, and its last part here."""


def in_one_line(said: str, arguments: Sequence[str], options_of: Callable[[Sequence[str]], Sequence[str]]) -> str:
    """The parser's explanation as one line.

    Args:
      said: what it printed, in a box or not, unwrapped.
      arguments: of the command line.
      options_of: the options of a command and its subcommand, such as ``["data", "check"]``.
    """
    body = _first_part(said)
    text = " ".join(line for line, _ in body)
    words = [one for one in arguments[:1] if re.fullmatch(r"[a-z]+", one)]
    words += [one for one in arguments[1:2] if words and words[0] in ("data", "bench") and re.fullmatch(r"[a-z]+", one)]
    if text.startswith("Unrecognized"):
        command, unknown = _unknown(text, words, arguments)
        near = nearest_option(unknown, options_of(command)) if unknown.startswith("--") else None
        hint = f"did you mean {near}?" if near else _choices(said) or _see(command)
        return f"{' '.join(['yolojax', *command])} does not know {unknown!r}: {hint}"
    if text.startswith("Missing from") and len(body) > 1:
        command = text.removeprefix("Missing from yolojax").partition(":")[0].split()
        least = min(indent for _, indent in body[1:])
        needed = [line for line, indent in body[1:] if indent == least]
        return f"{' '.join(['yolojax', *command])} needs {', '.join(needed)}; {_see(command)}"
    return f"{text[:400].rstrip('.') or 'wrong arguments'}; {_see(words)}"


def _first_part(said: str) -> list[tuple[str, int]]:
    """The lines of a box below its title and above the next rule, and how far they are indented.

    The parser draws boxes with the title in their border; where the output cannot show those, a title above a rule.
    """
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in said.splitlines()]
    boxed = any(row.startswith("╭") for row in rows)
    inside = [row.removeprefix("│").removesuffix("│").rstrip() for row in rows if not row.startswith(("╭", "╰"))]
    rules = [k for k, row in enumerate(inside) if re.fullmatch(r"\s*[─-]{5,}", row)]
    start = 0 if boxed or not rules else rules[0] + 1
    end = next((k for k in rules if k >= start), len(inside))
    return [(row.strip(), len(row) - len(row.lstrip())) for row in inside[start:end] if row.strip()]


def nearest_option(unknown: str, options: Sequence[str]) -> str | None:
    """The option of a command that was probably meant: by another tool's name, by its initials, or spelt nearly so."""
    name = unknown.removeprefix("--").partition("=")[0].replace("_", "-").lower()
    last = {option: option.removeprefix("--").rpartition(".")[2] for option in options}
    for wanted in (name, OTHER_NAMES.get(name)):
        if (same := next((option for option, part in last.items() if part == wanted), None)) is not None:
            return same
    initials = {option: "".join(word[0] for word in part.split("-")) for option, part in last.items() if "-" in part}
    if (short := next((option for option, letters in initials.items() if letters == name), None)) is not None:
        return short
    longer = [option for option in options if len(name) > 2 and option.removeprefix("--").startswith(name)]
    return next(iter(longer or difflib.get_close_matches(f"--{name}", options, 1, 0.7)), None)


def _unknown(text: str, words: Sequence[str], arguments: Sequence[str]) -> tuple[list[str], str]:
    """The command, and the first of its arguments that it does not know."""
    listed = text.partition(":")[2]
    applied = re.search(r"(\S+) \(applied to yolojax ?([^)]*)\)", listed)
    if applied:
        return applied[2].split(), applied[1]
    first = next((one for one in arguments if re.search(rf"(?:^|[\s,]){re.escape(one)}(?:,|\s|$)", listed)), "")
    return [word for word in words if word != first], first or listed.strip()[:100]


def _choices(said: str) -> str:
    found = re.search(r"Available subcommands: ([^│\n]*)", said)
    return f"give one of {found[1].strip()}" if found else ""


def _see(command: Sequence[str]) -> str:
    return f"see {' '.join(['yolojax', *command])} --help"
