<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * Notices the end of a script after the last of its code has run: a stream, which PHP closes
 * together with all others that are still open. PHP does so even if a destructor has thrown or has
 * called exit, after which it calls no more destructors. After some fatal errors it does not close
 * streams.
 *
 * @internal
 */
final class ScriptEnd
{
    private const SCHEME = 'lockd-script-end';

    /** @var ?resource set by PHP */
    public $context = null;

    /** @return resource|false a stream; when PHP closes it, {@see Process::endAll()} is called */
    public static function watch()
    {
        stream_wrapper_register(self::SCHEME, self::class);
        return fopen(self::SCHEME . '://', 'r');
    }

    // phpcs:disable PSR1.Methods.CamelCapsMethodName -- the names are PHP's

    public function stream_open(): bool
    {
        return true;
    }

    /** PHP calls this if a program examines all open streams. */
    public function stream_eof(): bool
    {
        return true;
    }

    public function stream_close(): void
    {
        Process::endAll();
    }
}
