# SPDX-License-Identifier: GPL-3.0-or-later

"""What the editor of wp-config.php makes of a file: before, the wanted constants, after (or the error and its line)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LOAD = "require_once ABSPATH . 'wp-settings.php';\n"
#: as WordPress' own sample ends
TAIL = f"""
/* That's all, stop editing! Happy publishing. */

/** Absolute path to the WordPress directory. */
if ( ! defined( 'ABSPATH' ) ) {{
\tdefine( 'ABSPATH', __DIR__ . '/' );
}}

/** Sets up WordPress vars and included files. */
{LOAD}"""


@dataclass(frozen=True)
class Case:
    """after None: stays as it is; error: what must be said, and of which line."""

    name: str
    before: str
    wanted: dict[str, Any] = field(default_factory=lambda: {"A": True})
    after: str | None = None
    error: tuple[int, str] | None = None
    raw: dict[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    fragment: bool = False

    @property
    def constants(self) -> list[dict[str, Any]]:
        """As the program takes them."""
        items: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in self.wanted.items()]
        items += [{"name": name, "raw": value} for name, value in self.raw.items()]
        return items + [{"name": name, "absent": True} for name in self.absent]


def php(text: str) -> str:
    """A wp-config.php with these lines before the end."""
    return f"<?php\n{text}{TAIL}"


def unchanged(name: str, text: str, **given: Any) -> Case:
    return Case(name, php(text), **given)


def becomes(name: str, text: str, after: str, **given: Any) -> Case:
    return Case(name, php(text), after=php(after), **given)


def refused(name: str, text: str, line: int, words: str, **given: Any) -> Case:
    return Case(name, php(text), error=(line, words), **given)


NEW = "define( 'A', true );\n"
CASES = [
    # --- a value that is there already
    unchanged("as WordPress writes it", NEW),
    unchanged("double quotes, no spaces", 'define("A",true);\n'),
    unchanged("any case of function and value", "DEFINE( 'A', TRUE );\n"),
    unchanged("fully qualified", "\\define('A', \\true);\n"),
    unchanged("comments inside", "define( /* x */ 'A', // y\n  true # z\n);\n"),
    unchanged("named arguments", "define(value: true, constant_name: 'A');\n"),
    unchanged("const", "const A = true;\n"),
    unchanged("several on a line", "define('B', 1); define('A', true); define('C', 2);\n"),
    unchanged("guarded by itself", "if ( ! defined( 'A' ) ) {\n\tdefine( 'A', true );\n}\n"),
    unchanged("guarded, short", "defined('A') || define('A', true);\n"),
    unchanged("guarded, with a word", "defined('A') or define('A', true);\n"),
    unchanged("guarded, the other way", "!defined('A') && define('A', true);\n"),
    unchanged("silenced", "@define('A', true);\n"),
    unchanged("result is kept", "$done = define('A', true);\n"),
    unchanged("plain block", "{\n\tdefine('A', true);\n}\n"),
    unchanged("the first counts, not a condition after it", "define('A', true);\nif ($x) { define('A', false); }\n"),
    unchanged("number", "define('N', 0x10);\n", wanted={"N": 16}),
    unchanged("negative number with underscores", "define('N', -1_000);\n", wanted={"N": -1000}),
    unchanged("octal", "define('N', 0755);\n", wanted={"N": 0o755}),
    unchanged("octal, new style", "define('N', 0o755);\n", wanted={"N": 0o755}),
    unchanged("floating point", "define('F', 1.50);\n", wanted={"F": 1.5}),
    unchanged("null", "define('N', NULL);\n", wanted={"N": None}),
    unchanged(
        "string in other quotes", 'define( "S", "a\\"b\\$c\\\\d\\n\\x41\\u{e4}" );\n', wanted={"S": 'a"b$c\\d\nAä'}
    ),
    unchanged("string with both quotes", "define( 'S', 'it\\'s \\\\ \"x\"' );\n", wanted={"S": 'it\'s \\ "x"'}),
    unchanged(
        "raw, written otherwise",
        "define('R',dirname( __FILE__ )   . '/x' /* y */);\n",
        wanted={},
        raw={"R": "dirname(__FILE__) . '/x'"},
    ),
    unchanged("absent", "# define('A', 1);\n", wanted={}, absent=("A",)),
    # --- a value that differs
    becomes("other value", "define( 'A', false ); // why\n", "define( 'A', true ); // why\n"),
    becomes("of another type", "define('A', 'true');\n", "define('A', true);\n"),
    becomes("one is not true", "define('A', 1);\n", NEW.replace("( 'A', true )", "('A', true)")),
    becomes("of a heredoc", "define('A', <<<X\n  define('A', true);\n  X);\n", "define('A', true);\n"),
    becomes("of a call", "define('A', getenv('A', f(1, 2)));\n", "define('A', true);\n"),
    becomes("of const", "const B = 1, A = [1, 2], C = 3;\n", "const B = 1, A = true, C = 3;\n"),
    becomes("guarded", "if (!defined('A'))\n define('A', 0);\n", "if (!defined('A'))\n define('A', true);\n"),
    becomes(
        "string is quoted",
        "define( 'S', 'x' );\n",
        "define( 'S', 'it\\'s \\\\ $x' );\n",
        wanted={"S": "it's \\ $x"},
    ),
    becomes("raw", "define('R', 1);\n", "define('R', 60 * 60);\n", wanted={}, raw={"R": "60 * 60"}),
    becomes(
        "duplicates",
        "define('A', false);\ndefine('B', 1);\ndefine('A', true);\n",
        "define('A', true);\ndefine('B', 1);\n",
    ),
    becomes("right, but twice", "define('A', true);\ndefine('A', true);\n", "define('A', true);\n"),
    # --- what is no definition
    becomes("in a line comment", "// define( 'A', true );\n", "// define( 'A', true );\n" + NEW),
    becomes("in a comment", "/* define( 'A', true ); */\n$x = 1;\n", "/* define( 'A', true ); */\n$x = 1;\n" + NEW),
    becomes("in a string", "$x = \"define( 'A', true );\";\n", "$x = \"define( 'A', true );\";\n" + NEW),
    becomes(
        "in a heredoc",
        "$x = <<<TXT\ndefine( 'A', true );\nTXT;\n",
        "$x = <<<TXT\ndefine( 'A', true );\nTXT;\n" + NEW,
    ),
    becomes(
        "in a nowdoc",
        "$x = <<<'TXT'\ndefine( 'A', true ); /* That's all, stop editing! */\nTXT;\n",
        "$x = <<<'TXT'\ndefine( 'A', true ); /* That's all, stop editing! */\nTXT;\n" + NEW,
    ),
    becomes(
        "a method",
        "Config::define('A', true);\n$c->define('A', true);\n",
        "Config::define('A', true);\n$c->define('A', true);\n" + NEW,
    ),
    becomes("a name in another case", "define('a', true);\n", "define('a', true);\n" + NEW),
    becomes("a computed name", "define('A' . $x, true);\n", "define('A' . $x, true);\n" + NEW),
    becomes(
        "a function of that name",
        "class X {\n\tfunction define($n, $v) {}\n\tconst A = true;\n}\n",
        "class X {\n\tfunction define($n, $v) {}\n\tconst A = true;\n}\n" + NEW,
    ),
    # --- conditions
    refused("under a condition", "if ($x) {\n\tdefine('A', true);\n}\n", 3, "under a condition"),
    refused("in the other branch", "if ($x) {\n} else define('A', 1);\n", 3, "under a condition"),
    refused("alternative syntax", "if ($x):\n  if ($y): endif;\n define('A', 1);\nendif;\n", 4, "under a condition"),
    refused("guarded by another", "if (!defined('B')) {\n\tdefine('A', 1);\n}\n", 3, "under a condition"),
    refused("guarded, with another branch", "if (!defined('A')) define('A', 1); else f();\n", 2, "under a condition"),
    refused("in a loop", "foreach ([1] as $x):\n f();\n define('A', 1);\nendforeach;\n", 4, "under a condition"),
    refused("in a function", "function f() {\n define('A', 1);\n}\n", 3, "under a condition"),
    refused("in a closure", "g(function () {\n define('A', 1);\n});\n", 3, "under a condition"),
    refused("in a choice", "$x ? define('A', 1) : 0;\n", 2, "under a condition"),
    refused("in a switch", "switch ($x) {\n case 1:\n  define('A', 1);\n}\n", 4, "under a condition"),
    refused("a condition before", "if ($x) define('A', 1);\ndefine('A', true);\n", 2, "under a condition"),
    # --- where a new one stands
    Case(
        "before WordPress is loaded",
        f"<?php\n$x = 1;\n\n/** Loads it. */\n{LOAD}",
        after=f"<?php\n$x = 1;\n{NEW}\n/** Loads it. */\n{LOAD}",
    ),
    Case(
        "on one line with that", "<?php require './wp-settings.php';", after=f"<?php {NEW}require './wp-settings.php';"
    ),
    Case(
        "loaded under a condition",
        f"<?php\n$x = 1;\nif ($x) {{\n  {LOAD}}}\n",
        after=f"<?php\n$x = 1;\n{NEW}\nif ($x) {{\n  {LOAD}}}\n",
    ),
    Case("one that stands too late", php("") + "define('A', true);\n", after=php(NEW)),
    Case(
        "what needs ABSPATH stands after it",
        php("$x = 1;\n"),
        wanted={},
        raw={"R": "ABSPATH . 'x'"},
        after=php("$x = 1;\n").replace("}\n\n/** Sets", "}\ndefine( 'R', ABSPATH . 'x' );\n\n/** Sets"),
    ),
    becomes(
        "several", "$x = 1;\n", "$x = 1;\ndefine( 'A', true );\ndefine( 'B', 'x' );\n", wanted={"A": True, "B": "x"}
    ),
    Case(
        "no stop line, CRLF",
        "<?php\r\n$x = 1;\r\n\r\nrequire 'wp-settings.php';\r\n",
        after="<?php\r\n$x = 1;\r\ndefine( 'A', true );\r\n\r\nrequire 'wp-settings.php';\r\n",
    ),
    Case("CRLF", php("").replace("\n", "\r\n"), after=php(NEW).replace("\n", "\r\n")),
    Case("closing tag", php("") + "?>\n", after=php(NEW) + "?>\n"),
    Case("no line at the end", php("").rstrip("\n"), after=php(NEW).rstrip("\n")),
    Case("a mark before the code", "\ufeff" + php(""), after="\ufeff" + php(NEW)),
    Case("bytes that are no UTF-8", php("$x = '\udce4';\n"), after=php("$x = '\udce4';\n" + NEW)),
    # --- absent
    becomes(
        "gone with its line", "$x = 1;\ndefine('A', 1);\n$y = 2;\n", "$x = 1;\n$y = 2;\n", wanted={}, absent=("A",)
    ),
    becomes("gone beside others", "f(); define('A', 1); g();\n", "f();  g();\n", wanted={}, absent=("A",)),
    becomes("all of them", "define('A', 1);\n// x\ndefine('A', 2);\n", "// x\n", wanted={}, absent=("A",)),
    becomes(
        "with its guard", "if (!defined('A')) {\n\tdefine('A', 1);\n}\n$y = 2;\n", "$y = 2;\n", wanted={}, absent=("A",)
    ),
    becomes(
        "with its short guard", "defined('A') || define('A', 1);\n$y = 2;\n", "$y = 2;\n", wanted={}, absent=("A",)
    ),
    refused("not out of a condition", "if ($x) define('A', 1);\n", 2, "remove that by hand", wanted={}, absent=("A",)),
    refused("not out of an expression", "$x = define('A', 1);\n", 2, "remove that by hand", wanted={}, absent=("A",)),
    refused(
        "not out of a longer guard",
        "if (!defined('A')) {\n\tdefine('A', 1);\n\tf();\n}\n",
        3,
        "remove that by hand",
        wanted={},
        absent=("A",),
    ),
    # --- a file that only holds constants, as Debian's /etc/wordpress/config-*.php
    Case("fragment", "<?php\n$x = 1;\n", after=f"<?php\n$x = 1;\n{NEW}", fragment=True),
    Case("fragment, closing tag", "<?php\n$x = 1;\n?>\n", after=f"<?php\n$x = 1;\n{NEW}?>\n", fragment=True),
    Case("fragment, closing tag on the line", "<?php $x = 1 ?>", after=f"<?php $x = 1 ;\n{NEW}?>", fragment=True),
    Case("fragment without an end", "<?php\n$x = 1; // y", after=f"<?php\n$x = 1; // y\n{NEW}", fragment=True),
    Case(
        "fragment with data",
        "<?php\nf();\n__halt_compiler();junk",
        after=f"<?php\nf();\n{NEW}__halt_compiler();junk",
        fragment=True,
    ),
    Case("no PHP", "hello\n", error=(0, "no PHP"), fragment=True),
    # --- what cannot be edited
    Case("WordPress is not loaded", "<?php\n$x = 1;\n", error=(0, "wp-settings.php is not loaded")),
    Case("broken", php("$x = ;\n"), error=(2, "syntax error")),
    Case("broken at the end", php("f(;\n"), error=(2, "syntax error")),
    Case("raw is no expression", php(""), wanted={}, raw={"R": "1 +"}, error=(0, "not a PHP expression")),
    Case("raw is two", php(""), wanted={}, raw={"R": "1); f(2"}, error=(0, "not one PHP expression")),
    Case("raw is a statement", php(""), wanted={}, raw={"R": "1; f()"}, error=(0, "not a PHP expression")),
    Case("raw ends in a comment", php(""), wanted={}, raw={"R": "1 // x"}, error=(0, "not one PHP expression")),
]
