<?php

declare(strict_types=1);

namespace Lockd\Message;

use Generator;
use UnexpectedValueException;

/**
 * The frames of the `message` protocol: writes a message as bytes, and takes messages out of the
 * bytes that have arrived. Knows neither streams nor what a message means.
 *
 * @internal
 */
final class Frames
{
    /**
     * In bytes. Replies may be long, but a greater length means that the peer does not speak
     * `message`.
     */
    private const FRAME_MAX = 1 << 28;

    private const JSON = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;

    private string $received = '';
    /** Whether a whole frame has arrived. */
    public bool $hasMessage = false;
    /** False if what has arrived shows that the peer does not speak `message`. */
    public bool $areMessages = true;

    /**
     * The bytes of a message, with numbers at full precision, whatever PHP's `serialize_precision`
     * says; false: it cannot be written as JSON.
     *
     * @param array<string, mixed> $message
     */
    public static function encode(array $message): string|false
    {
        $precision = function_exists('ini_get') ? ini_get('serialize_precision') : '-1';
        $isFull = $precision === '-1' || !function_exists('ini_set');
        if (!$isFull) {
            ini_set('serialize_precision', '-1');
        }
        try {
            $body = json_encode($message, self::JSON);
        } finally {
            if (!$isFull) {
                ini_set('serialize_precision', (string) $precision);
            }
        }
        return $body === false ? false : pack('N', strlen($body)) . $body;
    }

    /**
     * The messages that are complete with these bytes.
     *
     * @return Generator<int, Result>
     * @throws UnexpectedValueException the peer does not speak `message`
     */
    public function decode(string $bytes): Generator
    {
        $this->received .= $bytes;
        $at = 0;
        while (strlen($this->received) - $at >= 4) {
            /** @var array{1: int} $header */
            $header = unpack('N', $this->received, $at);
            if ($header[1] > self::FRAME_MAX) {
                $begins = $this->hasMessage ? '' : substr($this->received, $at);
                $this->areMessages = false;
                throw new UnexpectedValueException(self::protocolOf($begins)
                    ?? "what the server sends is no message: its length would be $header[1]");
            }
            if (strlen($this->received) - $at - 4 < $header[1]) {
                break;
            }
            $this->hasMessage = true;
            $message = json_decode(substr($this->received, $at + 4, $header[1]), true);
            if (!is_array($message)) {
                $this->areMessages = false;
                throw new UnexpectedValueException('what the server sends is no message in JSON');
            }
            $at += 4 + $header[1];
            yield new Result($message);
        }
        $this->received = substr($this->received, $at);
    }

    /**
     * Which other protocol a server speaks whose first bytes are these, and what to do; null:
     * unknown.
     */
    private static function protocolOf(string $begins): ?string
    {
        $wanted = 'clients need a port where lockd speaks `message` (20934 unless the server is told another)';
        $line = addcslashes(substr(strtok($begins, "\r\n") ?: '', 0, 160), "\0..\37\"\\\177..\377");
        return match (true) {
            preg_match('#^[\x15\x16]\x03#', $begins) === 1 =>
                'it speaks TLS there, which only liblockd does: use connectByFfi with tls://, or a port without TLS',
            str_starts_with($begins, 'HTTP/1') => "it speaks HTTP there (\"$line\"): $wanted",
            preg_match('#^[\x20-\x7e\t\r\n]{4}#', $begins) === 1 =>
                "it speaks a text protocol there (\"$line\"): $wanted",
            default => null,
        };
    }
}
