<?php

declare(strict_types=1);

namespace Lockd\Internal;

use PhpToken;

/**
 * Reads in PHP's source code what becomes of the result of a call. Knows nothing of locks. It says
 * that a result is dropped only where the code next to the call leaves no other possibility.
 *
 * @internal
 */
final class SourceFile
{
    /** @var list<int> */
    private const ARROWS = [T_OBJECT_OPERATOR, T_NULLSAFE_OBJECT_OPERATOR, T_DOUBLE_COLON];
    /** @var list<int> */
    private const COMPARISONS = [T_IS_IDENTICAL, T_IS_NOT_IDENTICAL, T_IS_EQUAL, T_IS_NOT_EQUAL];
    /** @var list<int> */
    private const AND_OR = [T_BOOLEAN_AND, T_BOOLEAN_OR];
    /** @var list<int> the same operators with a lower precedence than an assignment */
    private const AND_OR_WORDS = [T_LOGICAL_AND, T_LOGICAL_OR, T_LOGICAL_XOR];
    /** @var list<int> */
    private const NAMES = [T_STRING, T_NAME_QUALIFIED, T_NAME_FULLY_QUALIFIED, T_NAME_RELATIVE, T_VARIABLE, T_STATIC];
    /** @var list<int|string> */
    private const OPENING = ['(', '[', '{', T_CURLY_OPEN, T_DOLLAR_OPEN_CURLY_BRACES, T_ATTRIBUTE];
    /** @var list<string> */
    private const CLOSING = [')', ']', '}'];

    /** @param list<PhpToken> $tokens without spaces and comments */
    private function __construct(private readonly array $tokens)
    {
    }

    /**
     * @param int $line a line of the call, by PHP's count
     * @param string $function the name of the called function or method, as in a backtrace
     */
    public static function useOfResult(string $file, int $line, string $function): ResultUse
    {
        // PHP may have been built without ext-tokenizer. Code of eval() is in no file.
        $source = class_exists(PhpToken::class) && is_file($file) ? file_get_contents($file) : false;
        if ($source === false) {
            return ResultUse::Unknown;
        }
        $isCode = static fn (PhpToken $token): bool => !$token->isIgnorable();
        $tokens = array_values(array_filter(PhpToken::tokenize($source), $isCode));
        return (new self($tokens))->useInLine($line, $function);
    }

    /** If there are several such calls in the line, only what is true of all of them. */
    private function useInLine(int $line, string $function): ResultUse
    {
        $name = self::lastPart($function);
        $common = null;
        foreach ($this->tokens as $at => $token) {
            $isNamed = $token->is(self::NAMES) && strcasecmp(self::lastPart($token->text), $name) === 0;
            $end = $isNamed && $this->isCall($at) ? $this->end($at + 1) : null;
            if ($end === null) {
                continue;
            }
            $start = $this->start($at);
            // A call may take several lines; which of them PHP counts depends on its version.
            if ($this->tokens[$start ?? $at]->line <= $line && $line <= $this->tokens[$end]->line) {
                $use = $start === null ? ResultUse::Unknown : $this->useOf($start, $end);
                $common = $common === null || $common === $use ? $use : ResultUse::Unknown;
            }
        }
        return $common ?? ResultUse::Unknown;
    }

    private function isCall(int $at): bool
    {
        $isDeclaration = $this->is($at - 1, [T_FUNCTION, T_NEW]) || $this->is($at - 2, [T_FUNCTION]);
        $isClosure = $this->is($at + 2, [T_ELLIPSIS]) && $this->is($at + 3, [')']);
        return $this->is($at + 1, ['(']) && !$isDeclaration && !$isClosure;
    }

    /** A name without its namespace. */
    private static function lastPart(string $name): string
    {
        return substr((string) strrchr("\\$name", '\\'), 1);
    }

    /** What becomes of the value of the expression from one token to another. */
    private function useOf(int $start, int $end): ResultUse
    {
        while ($this->is($start - 1, ['@'])) {
            $start--;
        }
        [$before, $after] = [$start - 1, $end + 1];
        $isTernary = $this->is($after, ['?']) && !$this->is($after + 1, [':']);
        return match (true) {
            $this->is($after, [...self::ARROWS, '[', '(']) => ResultUse::Unknown,
            $this->is($before, ['!', T_BOOL_CAST, ...self::COMPARISONS, ...self::AND_OR]),
            $isTernary || $this->is($after, [T_INSTANCEOF, ...self::COMPARISONS, ...self::AND_OR]),
            $this->isOperandOfWord($before, $after),
            $this->isStatement($before, $after) => ResultUse::Dropped,
            $this->is($before, [T_RETURN]) && $this->is($after, [';', T_COALESCE]) => ResultUse::Returned,
            $this->is($before, ['(']) && $this->is($after, [')']) => $this->useInParentheses($before, $after),
            default => ResultUse::Unknown,
        };
    }

    private function useInParentheses(int $open, int $close): ResultUse
    {
        // Before parentheses that only group there is one of these, and not the name of a function.
        $groups = ['(', '=', '!', ';', '{', T_BOOL_CAST, T_RETURN,
            ...self::COMPARISONS, ...self::AND_OR, ...self::AND_OR_WORDS];
        return match (true) {
            $this->is($open - 1, [T_IF, T_ELSEIF, T_WHILE, T_EMPTY]) => ResultUse::Dropped,
            $this->is($open - 1, $groups) => $this->useOf($open, $close),
            default => ResultUse::Unknown,
        };
    }

    private function isOperandOfWord(int $before, int $after): bool
    {
        $begins = $this->beginsStatement($before) || $this->is($before, ['(']);
        return ($this->is($before, self::AND_OR_WORDS) && ($this->is($after, [';', ')', ...self::AND_OR_WORDS])))
            || ($begins && $this->is($after, self::AND_OR_WORDS));
    }

    /** Whether a statement begins with the value, and does not assign it to anything. */
    private function isStatement(int $before, int $after): bool
    {
        return $this->beginsStatement($before) && $this->is($after, [';', '?', T_COALESCE, T_CLOSE_TAG]);
    }

    private function beginsStatement(int $before): bool
    {
        // A `)` is the end of an if's condition, or the like.
        return $before < 0
            || $this->is($before, [';', '{', '}', ')', T_ELSE, T_DO, T_CLOSE_TAG, T_INLINE_HTML]);
    }

    /**
     * Where the expression begins whose last name is at this place, as `$this` in
     * `$this->client('a')->acquire`; null: unknown.
     */
    private function start(int $at): ?int
    {
        while ($this->is($at - 1, self::ARROWS)) {
            $at -= 2;
            while ($this->is($at, self::CLOSING)) {
                $open = $this->opening($at);
                if ($open === null || $this->is($open, ['{'])) {
                    return null;
                }
                if (!$this->is($open - 1, [...self::NAMES, ...self::CLOSING])) {
                    // Parentheses that group, or an array.
                    return $open;
                }
                $at = $open - 1;
            }
            if (!$this->is($at, self::NAMES)) {
                return null;
            }
        }
        return $this->is($at - 1, ['$', T_NEW]) ? null : $at;
    }

    /** The bracket that closes this one; null: none does. */
    private function end(int $open): ?int
    {
        for ([$at, $depth] = [$open, 0]; isset($this->tokens[$at]); $at++) {
            $depth += (int) $this->is($at, self::OPENING) - (int) $this->is($at, self::CLOSING);
            if ($depth === 0) {
                return $at;
            }
        }
        return null;
    }

    /** The bracket that this one closes; null: none. */
    private function opening(int $close): ?int
    {
        for ([$at, $depth] = [$close, 0]; $at >= 0; $at--) {
            $depth += (int) $this->is($at, self::CLOSING) - (int) $this->is($at, self::OPENING);
            if ($depth === 0) {
                return $at;
            }
        }
        return null;
    }

    /** @param list<int|string> $kinds */
    private function is(int $at, array $kinds): bool
    {
        return ($this->tokens[$at] ?? null)?->is($kinds) === true;
    }
}
