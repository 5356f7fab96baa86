<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Exception;
use Lockd\Lock;

/** The ways in which a request can end. Used by endings.php and by the scripts in the workers. */
final class Endings
{
    /** The configuration of each pool in addition to the common one. */
    public const POOLS = [
        'worker' => '',
        'recycled' => 'pm.max_requests = 1',
        'terminated' => 'request_terminate_timeout = 1s',
    ];

    // Linux's numbers: the workers do not have pcntl, which has names for them.
    private const SIGKILL = 9;
    private const SIGTERM = 15;
    private const SIGPROF = 27;

    /** @return list<Ending> */
    public static function all(): array
    {
        return [...self::ordinary(), ...self::fatal(), ...self::late(), ...self::foreign(), ...self::waiting()];
    }

    public static function named(string $name): Ending
    {
        foreach (self::all() as $ending) {
            if ($ending->name === $name) {
                return $ending;
            }
        }
        throw new Exception("no ending is called \"$name\"");
    }

    /** @return list<Ending> */
    private static function ordinary(): array
    {
        return [
            new Ending('end of the script'),
            (new Ending('release'))->then(fn (Script $script, ?Lock $lock) => $lock?->release()),
            (new Ending('exit'))->then(fn () => exit),
            (new Ending('fastcgi_finish_request()'))->then(function (Script $script): void {
                fastcgi_finish_request();
                usleep(100_000);
                $script->isAlive();
            }),
            (new Ending('exception'))->then(fn () => throw new Exception('nobody catches it')),
            (new Ending('TypeError'))->then(fn () => (fn (int $number): int => $number)('none')),
        ];
    }

    /** @return list<Ending> */
    private static function fatal(): array
    {
        return [
            (new Ending('memory limit'))->then(self::exhaust(...)),
            (new Ending('E_USER_ERROR'))->then(fn () => trigger_error('it cannot go on', E_USER_ERROR)),
            (new Ending('time limit'))->then(self::burn(...)),
            (new Ending('memory limit, background process'))->leavesProcess()->then(self::exhaust(...)),
        ];
    }

    /**
     * Endings that begin after the script has ended.
     *
     * @return list<Ending>
     */
    private static function late(): array
    {
        $before = static fn (callable $do) => static fn (Script $script) => register_shutdown_function($do, $script);
        $destroy = static fn (callable $do) => static fn (Script $script) => $script->destroy($do);
        return [
            (new Ending('exit at shutdown'))->before($before(fn () => exit)),
            (new Ending('exception at shutdown'))->before($before(fn () => throw new Exception('too late'))),
            (new Ending('memory limit at shutdown'))->before($before(self::exhaust(...)))
                ->freed(Freed::AtOnce, Freed::ByTheNextRequest),
            (new Ending('time limit at shutdown'))->before($before(self::burn(...)))
                ->freed(Freed::AtOnce, Freed::ByTheNextRequest),
            (new Ending('exit in a destructor'))->then($destroy(fn () => exit)),
            (new Ending('exception in a destructor'))->then($destroy(fn () => throw new Exception('too late'))),
            (new Ending('memory limit in a destructor'))->then($destroy(self::exhaust(...)))
                ->freed(Freed::AtOnce, Freed::ByTheNextRequest),
        ];
    }

    /**
     * Endings that come from outside the script, and background processes that outlive it.
     *
     * @return list<Ending>
     */
    private static function foreign(): array
    {
        $kill = fn () => posix_kill(getmypid(), self::SIGKILL);
        return [
            (new Ending('client gone'))->hangsUp()->then(fn (Script $script) => $script->talk()),
            (new Ending('background process'))->leavesProcess(),
            (new Ending('SIGKILL'))->dies()->then($kill),
            (new Ending('SIGKILL, background process'))->leavesProcess()->dies()->then($kill)
                ->freed(Freed::WithTheBackground, Freed::AtOnce),
            (new Ending('pm.max_requests'))->in('recycled')->dies(),
            (new Ending('request_terminate_timeout'))->in('terminated')->dies()
                ->then(fn (Script $script) => $script->idle()),
        ];
    }

    /** @return list<Ending> */
    private static function waiting(): array
    {
        return [
            // The kernel sends this signal when a script has used up its processor time.
            (new Ending('waiting: time limit'))->waits()->signal(self::SIGPROF),
            (new Ending('waiting: SIGKILL'))->waits()->dies()->signal(self::SIGKILL),
            (new Ending('waiting: SIGTERM'))->waits()->dies()->signal(self::SIGTERM),
            (new Ending('waiting: request_terminate_timeout'))->waits()->in('terminated')->dies(),
            (new Ending('waiting: client gone'))->waits()->hangsUp()->then(fn (Script $script) => $script->talk())
                ->freed(Freed::WhenGranted, Freed::WhenGranted),
        ];
    }

    private static function exhaust(): never
    {
        for ($all = [];;) {
            $all[] = str_repeat('.', 1000);
        }
    }

    private static function burn(Script $script): never
    {
        set_time_limit(1);
        for (;;) {
            $script->isAlive();
        }
    }
}
