"""Keywords as words of the command line."""
import os
from collections.abc import Iterable

# Options that take `true` or `false` instead of standing alone.
_SAID = ("tied",)


def words(options):
    """The words of `options`: None and False leave one out, a list repeats it. `as_` stands for `--as`, and `~` is the home."""
    found = []
    for name, value in options.items():
        option = "--" + name.rstrip("_").replace("_", "-")
        for each in [value] if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else value:
            found.extend(_words_of(option, each, name in _SAID))
    return found


def _words_of(option, value, is_said):
    if value is None or value is False and not is_said:
        return []
    if value is True and not is_said:
        return [option]
    return [f"{option}={expanded(str(value).lower() if is_said else value)}"]


def expanded(word):
    return os.path.expanduser(os.fsdecode(word) if isinstance(word, (bytes, os.PathLike)) else str(word))
