<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * The end of a script, after everything of it that runs: a stream, which PHP closes with all others that are still
 * open. It does so also where a destructor has thrown or has called exit, after which no other one is called. After
 * some fatal errors it leaves even this out.
 *
 * @internal
 */
final class ScriptEnd
{
    private const SCHEME = 'lockd-script-end';

    /** @var ?resource PHP's own */
    public $context = null;

    /** @return resource|false {@see Process::endAll()} is called when it is closed */
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

    /** Asked for by whoever looks at every stream that there is. */
    public function stream_eof(): bool
    {
        return true;
    }

    public function stream_close(): void
    {
        Process::endAll();
    }
}
