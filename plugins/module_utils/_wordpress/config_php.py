# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The PHP program that edits a wp-config.php: only PHP's own tokenizer knows what is code and what a comment or string.

It never runs what it reads. Standard input: {"files": [{"code": base64, "fragment": bool, "constants": [{"name": …,
"value": …} | {"name": …, "raw": …} | {"name": …, "absent": true}]}]}. Standard output, for each file: {"code": base64
or null when nothing changes, "changes": [{"name", "line", "before", "after"}], "errors": [{"line", "message"}]}; before
and after are PHP source, null for no definition.
"""

from __future__ import annotations

PROGRAM = r"""<?php
declare(strict_types=1);

final class Trouble extends Exception
{
    public function __construct(string $message, public int $at = 0) { parent::__construct($message); }
}

/** A definition of a constant: where its statement and its value lie, and whether it always takes effect. */
final class Definition
{
    public function __construct(
        public string $name,
        public int $line,
        public int $from,        // of the value
        public int $to,
        public bool $always,     // reached whenever the file is; or guarded by the constant's own absence
        public bool $guarded,    // "unless it is defined already"
        public int $start = -1,  // of the statement that can go with it, -1: none
        public int $end = -1,
    ) {}
}

/** The statements of a file, as far as constants are concerned. */
final class Source
{
    private const SKIP = [T_WHITESPACE, T_COMMENT, T_DOC_COMMENT];
    private const ENDS = [T_FOR => T_ENDFOR, T_FOREACH => T_ENDFOREACH, T_WHILE => T_ENDWHILE, T_SWITCH => T_ENDSWITCH];
    private const BLOCKS = [
        T_FOR, T_FOREACH, T_WHILE, T_SWITCH, T_DO, T_TRY, T_CATCH, T_FINALLY, T_FUNCTION, T_CLASS, T_INTERFACE,
        T_TRAIT, T_ENUM, T_ABSTRACT, T_FINAL, T_READONLY, T_ATTRIBUTE, T_NAMESPACE, T_DECLARE,
    ];
    private const CHOICES = [
        '?', T_BOOLEAN_AND, T_BOOLEAN_OR, T_LOGICAL_AND, T_LOGICAL_OR, T_LOGICAL_XOR, T_COALESCE, T_COALESCE_EQUAL,
        T_FUNCTION, T_FN, T_MATCH, T_CLASS,
    ];

    /** @var PhpToken[] */ public array $all;
    /** @var PhpToken[] those that are neither space nor comment */ private array $t;
    /** @var Definition[] */ public array $definitions = [];
    /** @var array{int, int}[] outermost statements */ private array $outer = [];
    /** start of the outermost statement that loads WordPress, -1: none */ public int $loader = -1;
    private int $top = 0;

    public function __construct(public string $code)
    {
        try {
            $this->all = PhpToken::tokenize($code, TOKEN_PARSE);
        } catch (ParseError $problem) {
            throw new Trouble($problem->getMessage(), $problem->getLine());
        }
        $this->t = array_values(array_filter($this->all, fn($token) => !in_array($token->id, self::SKIP, true)));
        for ($i = 0; $i < count($this->t);) {
            $this->top = $this->t[$i]->pos;
            $next = $this->statement($i, true, '');
            if ($next > $i && !$this->outside($i)) {
                $this->outer[] = [$this->top, $this->endOf($next - 1)];
            }
            $i = max($next, $i + 1);
        }
    }

    private function is(int $i, int|string ...$kinds): bool
    {
        return isset($this->t[$i]) && $this->t[$i]->is($kinds);
    }

    private function outside(int $i): bool
    {
        return $this->is($i, T_OPEN_TAG, T_OPEN_TAG_WITH_ECHO, T_CLOSE_TAG, T_INLINE_HTML);
    }

    private function endOf(int $i): int
    {
        return $this->t[$i]->pos + strlen($this->t[$i]->text);
    }

    /** Index of the bracket that closes the one at $i. */
    private function closing(int $i): int
    {
        $depth = 0;
        for (; $i < count($this->t); $i++) {
            $depth += (int) $this->is($i, '(', '[', '{', T_CURLY_OPEN, T_DOLLAR_OPEN_CURLY_BRACES, T_ATTRIBUTE);
            $depth -= (int) $this->is($i, ')', ']', '}');
            if ($depth === 0) {
                return $i;
            }
        }
        return $i - 1;
    }

    /** Reads the statement at $i; returns the index behind it. $guard: the constant whose absence leads here. */
    private function statement(int $i, bool $always, string $guard, ?array $span = null): int
    {
        if ($this->outside($i) || $this->is($i, ';', '}')) {
            return $i + 1;
        }
        if ($this->is($i, '{')) {
            return $this->block($i, $always, $guard, $span);
        }
        if ($this->is($i, T_IF)) {
            return $this->condition($i, $always);
        }
        $end = $this->end($i);
        $compound = $this->is($i, ...self::BLOCKS);
        if ($this->is($i, T_CONST)) {
            $this->constants($i, $end, $always);
        } else {
            $this->expression($i, $end, $always && !$compound, $guard, $span);
        }
        return $end;
    }

    private function block(int $i, bool $always, string $guard, ?array $span): int
    {
        $close = $this->closing($i);
        // A guard with more than one statement does not go with its constant.
        $whole = $this->skip($i + 1) === $close ? $span : null;
        for ($i++; $i < $close;) {
            $i = max($this->statement($i, $always, $guard, $whole), $i + 1);
        }
        return $close + 1;
    }

    private function condition(int $i, bool $always): int
    {
        $from = $this->t[$i]->pos;
        $close = $this->closing($i + 1);
        if ($this->is($close + 1, ':')) {
            $depth = 0;
            for ($j = $i; $j < count($this->t); $j++) {
                $depth += (int) ($this->is($j, T_IF) && $this->is($this->closing($j + 1) + 1, ':'));
                $depth -= (int) $this->is($j, T_ENDIF);
                if ($depth === 0) {
                    break;
                }
            }
            $this->expression($i, $j + 2, false, '');
            return $j + 2;
        }
        $name = $this->is($i + 2, '!') && $this->defined($i + 3) === $close ? $this->text($i + 5) : '';
        $after = $this->skip($close + 1);
        $alone = $always && $name !== '' && !$this->is($after, T_ELSE, T_ELSEIF);
        $next = $this->statement($close + 1, $alone, $name, $alone ? [$from, $this->endOf($after - 1)] : null);
        while ($this->is($next, T_ELSEIF)) {
            $next = $this->statement($this->closing($next + 1) + 1, false, '');
        }
        if ($this->is($next, T_ELSE)) {
            $next = $this->statement($next + 1, false, '');
        }
        return $next;
    }

    /** Index behind the statement at $i, without looking into it. */
    private function skip(int $i): int
    {
        if ($this->is($i, '{')) {
            return $this->closing($i) + 1;
        }
        return $this->is($i, T_IF) ? $this->skip($this->closing($i + 1) + 1) : $this->end($i);
    }

    /** Index behind a statement that is neither a block nor an if. */
    private function end(int $i): int
    {
        $first = $i;
        $compound = $this->is($i, ...self::BLOCKS);
        for (; $i < count($this->t); $i++) {
            if ($this->is($i, ';')) {
                return $i + 1;
            }
            if ($this->outside($i)) {
                return $i;
            }
            if ($this->is($i, '}')) {
                return $i;
            }
            if ($this->is($i, '(', '[', '{', T_ATTRIBUTE)) {
                $brace = $this->is($i, '{');
                $i = $this->closing($i);
                if ($brace && $compound) {
                    return $i + 1;
                }
                $kind = $this->t[$first]->id;
                if (isset(self::ENDS[$kind]) && $this->is($i + 1, ':')) {
                    for ($depth = 1, $i += 2; $depth > 0 && $i < count($this->t); $i++) {
                        $depth -= (int) $this->is($i, self::ENDS[$kind]);
                        $depth += (int) ($this->is($i, $kind) && $this->is($this->closing($i + 1) + 1, ':'));
                    }
                    return $i + 1;
                }
            }
        }
        return $i;
    }

    /** Whether "defined('X')" stands at $i: index behind it, else -1. */
    private function defined(int $i): int
    {
        $literal = $this->is($i + 2, T_CONSTANT_ENCAPSED_STRING) && $this->is($i + 3, ')');
        return $this->calls($i, 'defined') && $literal ? $i + 4 : -1;
    }

    /** Whether a call of the function of this name stands at $i, in any case of letters. */
    private function calls(int $i, string $function): bool
    {
        $word = $this->is($i, T_STRING, T_NAME_FULLY_QUALIFIED) ? ltrim($this->t[$i]->text, '\\') : '';
        return strcasecmp($word, $function) === 0 && $this->is($i + 1, '(');
    }

    private function text(int $i): string
    {
        return (string) Literal::string($this->t[$i]->text);
    }

    private function expression(int $i, int $end, bool $always, string $guard, ?array $span = null): void
    {
        $first = $i;
        $last = $this->is($end - 1, ';') ? $end - 2 : $end - 1;
        // defined('X') || define('X', …);   ! defined('X') && define('X', …);
        $not = (int) $this->is($i, '!');
        $behind = $this->defined($i + $not);
        $joints = $not ? [T_BOOLEAN_AND, T_LOGICAL_AND] : [T_BOOLEAN_OR, T_LOGICAL_OR];
        $short = $behind > 0 && $this->is($behind, ...$joints) ? $behind + 1 : -1;
        $plain = $always;
        for ($j = $i; $j < $end; $j++) {
            $plain = $plain && !$this->is($j, ...self::CHOICES);
        }
        $silenced = $first + (int) $this->is($first, '@');
        for ($j = $i; $j < $end; $j++) {
            if ($this->is($j, T_REQUIRE, T_REQUIRE_ONCE, T_INCLUDE, T_INCLUDE_ONCE)) {
                for ($k = $j; $k < $end && !$this->is($k, ';') && $this->loader < 0; $k++) {
                    $string = $this->is($k, T_CONSTANT_ENCAPSED_STRING, T_ENCAPSED_AND_WHITESPACE);
                    $loads = $string && str_contains($this->t[$k]->text, 'wp-settings.php');
                    $this->loader = $loads ? $this->top : -1;
                }
            }
            $found = $this->call($j);
            if ($found === null) {
                continue;
            }
            [$name, $from, $to, $close] = $found;
            $whole = $close === $last && ($j === $silenced || $j === $short);
            $own = $j === $short ? $this->text($behind - 2) : $guard;
            $sure = $j === $short ? $always : $plain;
            $statement = $guard === '' ? [$this->t[$first]->pos, $this->endOf($end - 1)] : $span;
            $this->definitions[] = new Definition(
                $name, $this->t[$j]->line, $from, $to, $sure && ($own === '' || $own === $name), $own !== '',
                ...($whole && $statement !== null ? $statement : []),
            );
        }
    }

    /** A call of define() with a literal name at $i: name, value from, value to, index of the closing bracket. */
    private function call(int $i): ?array
    {
        if (!$this->calls($i, 'define')) {
            return null;
        }
        if ($this->is($i - 1, T_OBJECT_OPERATOR, T_NULLSAFE_OBJECT_OPERATOR, T_DOUBLE_COLON, T_FUNCTION, T_NEW)) {
            return null;
        }
        $close = $this->closing($i + 1);
        $arguments = [];
        for ($j = $begin = $i + 2; $j <= $close; $j++) {
            if ($this->is($j, ',') || $j === $close) {
                $labelled = $this->is($begin, T_STRING) && $this->is($begin + 1, ':');
                $label = $labelled ? $this->t[$begin]->text : count($arguments);
                $begin += $labelled ? 2 : 0;
                if ($begin < $j) {
                    $arguments[$label] = [$begin, $j - 1];
                }
                $begin = $j + 1;
            } elseif ($this->is($j, '(', '[', '{', T_CURLY_OPEN, T_DOLLAR_OPEN_CURLY_BRACES)) {
                $j = $this->closing($j);
            }
        }
        $name = $arguments[0] ?? $arguments['constant_name'] ?? null;
        $value = $arguments[1] ?? $arguments['value'] ?? null;
        if ($name === null || $value === null || $name[0] !== $name[1]) {
            return null;
        }
        if (!$this->is($name[0], T_CONSTANT_ENCAPSED_STRING)) {
            return null;
        }
        return [$this->text($name[0]), $this->t[$value[0]]->pos, $this->endOf($value[1]), $close];
    }

    private function constants(int $i, int $end, bool $always): void
    {
        $first = $i;
        $count = 0;
        for ($i++; $i < $end && $this->is($i + 1, '='); $i = $j + 1) {
            for ($j = $i + 2; $j < $end && !$this->is($j, ',', ';') && !$this->outside($j); $j++) {
                if ($this->is($j, '(', '[', '{')) {
                    $j = $this->closing($j);
                }
            }
            $this->definitions[] = new Definition(
                $this->t[$i]->text, $this->t[$i]->line, $this->t[$i + 2]->pos, $this->endOf($j - 1), $always, false,
                $this->t[$first]->pos, $this->endOf($end - 1),
            );
            $count++;
        }
        foreach ($count > 1 ? array_slice($this->definitions, -$count) : [] as $definition) {
            $definition->start = -1;
        }
    }

    /** Where a new constant goes, and what must stand before it. $late: as near to WordPress as can be. */
    public function place(bool $late): array
    {
        $at = $this->loader;
        if ($at < 0) {
            return $this->bottom();
        }
        foreach ($this->all as $token) {
            if ($token->pos >= $this->loader || $late) {
                break;
            }
            // The sample has another: Add any custom values between this line and the "stop editing" line.
            $stop = stripos($token->text, 'stop editing') !== false && !str_contains($token->text, 'between this line');
            if ($stop && $token->is([T_COMMENT, T_DOC_COMMENT]) && !$this->within($token->pos)) {
                $at = $token->pos;
            }
        }
        if ($at === $this->loader) {
            $at = $this->comment($at);
        }
        $line = $this->lineStart($at);
        if (!$this->first($at)) {
            return [$at, '', ''];
        }
        // Beside what stands before an empty line, if that is code or a comment of its own.
        $text = rtrim(substr($this->code, 0, $line));
        $gap = substr($this->code, strlen($text), $line - strlen($text));
        if (substr_count($gap, "\n") > 1 && !$this->within(strlen($text))) {
            return [strlen($text) + strpos($gap, "\n") + 1, '', ''];
        }
        return [$line, '', $this->eol()];
    }

    /** At the end of the code of a file that is included by another. */
    private function bottom(): array
    {
        $last = null;
        foreach ($this->all as $token) {
            if ($token->is(T_HALT_COMPILER)) {
                return [$this->lineStart($token->pos), '', ''];
            }
            $last = $token->is([T_OPEN_TAG, T_CLOSE_TAG]) ? $token : $last;
        }
        if ($last === null) {
            throw new Trouble('there is no PHP code in it');
        }
        if ($last->is(T_CLOSE_TAG)) {
            $before = array_values(array_filter($this->t, fn($token) => $token->pos < $last->pos));
            $open = $before !== [] && !end($before)->is([';', '}', T_OPEN_TAG, T_CLOSE_TAG]);
            return [$last->pos, ($open ? ';' : '') . ($this->first($last->pos) && !$open ? '' : $this->eol()), ''];
        }
        return [strlen($this->code), str_ends_with($this->code, "\n") ? '' : $this->eol(), ''];
    }

    /** Start of the comment that belongs to the statement at $at. */
    private function comment(int $at): int
    {
        $previous = array_values(array_filter($this->all, fn($token) => $token->pos < $at));
        [$space, $comment] = [array_pop($previous), array_pop($previous)];
        $near = $space?->is(T_WHITESPACE) && substr_count($space->text, "\n") === 1;
        $belongs = $near && $comment?->is([T_COMMENT, T_DOC_COMMENT]) && $this->first($comment->pos);
        return $belongs ? $comment->pos : $at;
    }

    /** Whether nothing stands before this position on its line. */
    private function first(int $position): bool
    {
        $line = $this->lineStart($position);
        return trim(substr($this->code, $line, $position - $line)) === '';
    }

    private function within(int $position): bool
    {
        foreach ($this->outer as [$start, $end]) {
            if ($start < $position && $position < $end) {
                return true;
            }
        }
        return false;
    }

    public function lineStart(int $position): int
    {
        $newline = $position > 0 ? strrpos(substr($this->code, 0, $position), "\n") : false;
        return $newline === false ? 0 : $newline + 1;
    }

    public function eol(): string
    {
        return 2 * substr_count($this->code, "\r\n") > substr_count($this->code, "\n") ? "\r\n" : "\n";
    }

    /** What goes with a statement: the whole line when nothing else is on it. */
    public function removal(int $start, int $end): array
    {
        $line = $this->lineStart($start);
        preg_match('/\G[ \t]*(\r?\n|\z)/', $this->code, $rest, 0, $end);
        if ($rest !== [] && $this->first($start)) {
            return [$line, $end + strlen($rest[0])];
        }
        return [$start, $end];
    }
}

/** Values as PHP source, and back. */
final class Literal
{
    public static function write(mixed $value): string
    {
        if (is_string($value)) {
            return "'" . strtr($value, ['\\' => '\\\\', "'" => "\\'"]) . "'";
        }
        return is_float($value) ? var_export($value, true) : json_encode($value);
    }

    /** Value of a quoted string without variables. */
    public static function string(string $text): string
    {
        $inner = substr($text, 1, -1);
        if ($text[0] === "'") {
            return preg_replace("/\\\\([\\\\'])/", '$1', $inner);
        }
        $pattern = '/\\\\(?:([nrtvef\\\\$"])|([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u\{([0-9A-Fa-f]+)\})/';
        $short = ['n' => "\n", 'r' => "\r", 't' => "\t", 'v' => "\v", 'e' => "\e", 'f' => "\f"];
        return preg_replace_callback($pattern, fn($m) => match (true) {
            ($m[4] ?? '') !== '' => html_entity_decode("&#x$m[4];", ENT_QUOTES | ENT_HTML5, 'UTF-8'),
            ($m[3] ?? '') !== '' => chr(hexdec($m[3])),
            ($m[2] ?? '') !== '' => chr(octdec($m[2]) & 255),
            default => $short[$m[1]] ?? $m[1],
        }, $inner);
    }

    /** Tokens of an expression, without space and comments. */
    public static function tokens(string $expression): array
    {
        $all = array_slice(PhpToken::tokenize("<?php $expression"), 1);
        return array_values(array_filter($all, fn($token) => !$token->is([T_WHITESPACE, T_COMMENT, T_DOC_COMMENT])));
    }

    /** Whether the source is the literal of just this value. */
    public static function is(string $source, mixed $value): bool
    {
        $tokens = self::tokens($source);
        $sign = count($tokens) === 2 && $tokens[0]->is('-') ? -1 : 1;
        $token = end($tokens);
        if (count($tokens) !== ($sign < 0 ? 2 : 1)) {
            return false;
        }
        if ($token->is(T_CONSTANT_ENCAPSED_STRING)) {
            return $sign > 0 && self::string($token->text) === $value;
        }
        if ($token->is(T_LNUMBER)) {
            $digits = str_replace('_', '', $token->text);
            return intval(preg_replace('/^0[oO]/', '0', $digits), 0) * $sign === $value;
        }
        if ($token->is(T_DNUMBER)) {
            return (float) str_replace('_', '', $token->text) * $sign === $value;
        }
        $words = ['true' => true, 'false' => false, 'null' => null];
        $word = strtolower(ltrim($token->text, '\\'));
        return $sign > 0 && array_key_exists($word, $words) && $words[$word] === $value;
    }

    /** Refuses what is not one expression. */
    public static function check(string $name, string $raw): void
    {
        $depth = 0;
        try {
            foreach (array_slice(PhpToken::tokenize("<?php return (\n$raw\n);", TOKEN_PARSE), 4, -3) as $token) {
                $depth += (int) $token->is(['(', '[', '{', T_CURLY_OPEN, T_DOLLAR_OPEN_CURLY_BRACES]);
                $depth -= (int) $token->is([')', ']', '}']);
                $line = $token->is(T_COMMENT) && !str_starts_with($token->text, '/*');
                if ($depth < 0 || $line || $token->is(T_CLOSE_TAG) || ($depth === 0 && $token->is(';'))) {
                    throw new Trouble("$name: the raw value is not one PHP expression");
                }
            }
        } catch (ParseError $problem) {
            throw new Trouble("$name: the raw value is not a PHP expression: " . $problem->getMessage());
        }
    }
}

/** What is to be done to a file, as a list of edits. */
final class Editor
{
    public array $changes = [];
    private array $edits = [];
    private array $new = [];

    public function __construct(private Source $source) {}

    public function apply(array $wanted): void
    {
        $name = $wanted['name'];
        $found = array_values(array_filter($this->source->definitions, fn($one) => $one->name === $name));
        $early = array_filter($found, fn($one) => $this->source->loader < 0 || $one->from < $this->source->loader);
        if ($wanted['absent'] ?? false) {
            foreach ($found as $one) {
                $this->remove($one);
            }
            return;
        }
        $after = $wanted['raw'] ?? Literal::write($wanted['value']);
        $first = array_shift($early);
        if ($first !== null && !$first->always) {
            throw new Trouble("$name is defined under a condition: edit that by hand", $first->line);
        }
        $before = null;
        $line = 0;
        $same = false;
        if ($first !== null) {
            $before = $this->text($first);
            $line = $first->line;
            $same = array_key_exists('raw', $wanted)
                ? array_column(Literal::tokens($before), 'text') === array_column(Literal::tokens($after), 'text')
                : Literal::is($before, $wanted['value']);
            if (!$same) {
                $this->edits[] = [$first->from, $first->to, $after];
            }
        } else {
            $this->new[] = [$name, $after];
        }
        foreach ($found as $one) {
            // Those that come later never count; without a guard each costs a warning on every visit.
            $idle = $one !== $first && $one->always && $one->start >= 0;
            if ($idle && (!$one->guarded || $first === null)) {
                $before ??= $this->text($one);
                $line = $line ?: $one->line;
                $same = false;
                $this->edits[] = [...$this->source->removal($one->start, $one->end), ''];
            }
        }
        if (!$same) {
            $this->changes[] = ['name' => $name, 'line' => $line, 'before' => $before, 'after' => $after];
        }
    }

    private function text(Definition $one): string
    {
        return substr($this->source->code, $one->from, $one->to - $one->from);
    }

    private function remove(Definition $one): void
    {
        if (!$one->always || $one->start < 0) {
            $words = 'is defined under a condition or inside an expression: remove that by hand';
            throw new Trouble("$one->name $words", $one->line);
        }
        $this->edits[] = [...$this->source->removal($one->start, $one->end), ''];
        $this->changes[] = ['name' => $one->name, 'line' => $one->line, 'before' => $this->text($one), 'after' => null];
    }

    public function result(): string
    {
        $eol = $this->source->eol();
        foreach ([false, true] as $late) {
            // What needs ABSPATH can only stand behind its definition.
            $needs = fn($value) => in_array('ABSPATH', array_column(Literal::tokens($value), 'text'), true);
            $lines = array_filter($this->new, fn($one) => $needs($one[1]) === $late);
            if ($lines !== []) {
                [$at, $lead, $tail] = $this->source->place($late);
                $text = implode('', array_map(fn($one) => "define( '$one[0]', $one[1] );$eol", $lines));
                $this->edits[] = [$at, $at, $lead . $text . $tail];
            }
        }
        $code = $this->source->code;
        usort($this->edits, fn($a, $b) => $b[0] <=> $a[0] ?: $b[1] <=> $a[1]);
        foreach ($this->edits as [$from, $to, $text]) {
            $code = substr_replace($code, $text, $from, $to - $from);
        }
        return $code;
    }
}

function edit(array $file): array
{
    $errors = [];
    $code = base64_decode($file['code']);
    try {
        $source = new Source($code);
        if ($source->loader < 0 && !$file['fragment']) {
            throw new Trouble('wp-settings.php is not loaded here: give the file that holds the constants itself');
        }
        $editor = new Editor($source);
    } catch (Trouble $problem) {
        return ['errors' => [['line' => $problem->at, 'message' => $problem->getMessage()]]];
    }
    foreach ($file['constants'] as $wanted) {
        try {
            if (array_key_exists('raw', $wanted)) {
                Literal::check($wanted['name'], $wanted['raw']);
            }
            $editor->apply($wanted);
        } catch (Trouble $problem) {
            $errors[] = ['line' => $problem->at, 'message' => $problem->getMessage()];
        }
    }
    try {
        $result = $errors === [] && $editor->changes !== [] ? $editor->result() : $code;
    } catch (Trouble $problem) {
        $errors[] = ['line' => $problem->at, 'message' => $problem->getMessage()];
    }
    if ($errors !== []) {
        return ['errors' => $errors];
    }
    return ['code' => $result === $code ? null : base64_encode($result), 'changes' => $editor->changes, 'errors' => []];
}

$job = json_decode(stream_get_contents(STDIN), true, 16, JSON_THROW_ON_ERROR);
$answers = [];
foreach ($job['files'] as $file) {
    $answer = edit($file);
    if (($answer['code'] ?? null) !== null) {
        // The result is read anew: a change that would be made again was no good change.
        $again = edit(['code' => $answer['code']] + $file);
        if ($again['errors'] !== [] || $again['code'] !== null) {
            $words = $again['errors'][0]['message'] ?? 'the change does not hold';
            $answer = ['errors' => [['line' => 0, 'message' => "cannot be edited: $words"]]];
        }
    }
    $answers[] = $answer;
}
echo json_encode($answers, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PRESERVE_ZERO_FRACTION);
"""
