<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Contracts\Debug\ExceptionHandler;
use Throwable;

/** Keeps the exceptions that are reported to the application. */
final class Reports implements ExceptionHandler
{
    /** @var list<Throwable> */
    public array $reported = [];

    public function report(Throwable $e): void
    {
        $this->reported[] = $e;
    }

    public function shouldReport(Throwable $e): bool
    {
        return true;
    }

    public function render($request, Throwable $e): void
    {
    }

    public function renderForConsole($output, Throwable $e): void
    {
    }
}
