<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Internal\Requirements;
use Lockd\Tests\Fpm\Fpm;
use Lockd\Tests\Fpm\Request;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use PhpToken;
use RecursiveDirectoryIterator;
use RecursiveIteratorIterator;
use ReflectionClass;

/** A PHP without some functions: a client works without them, or says before all else which it needs. */
final class RequirementsTest extends TestCase
{
    private const SOURCE = __DIR__ . '/../../src';

    public function testTheFileThatLoadsTheClassesSaysWhichFunctionIsMissing(): void
    {
        $without = '-d display_errors=1 -d log_errors=0 -d disable_functions=spl_autoload_register';
        $file = escapeshellarg(dirname(__DIR__, 2) . '/autoload.php');
        exec(escapeshellarg(PHP_BINARY) . " $without $file", $output);
        $text = 'RuntimeException: lockd needs the function spl_autoload_register (see disable_functions in php.ini)';
        self::assertStringContainsString($text, implode("\n", $output));
    }

    public function testNoFunctionIsFoundMissingOnTheWay(): void
    {
        $server = self::server();
        $classes = self::classes($server);
        $functions = self::functions();
        self::assertContains('stream_select', $functions);
        $wrong = [];
        foreach ($functions as $function) {
            $output = self::without($function, $classes, $server);
            $named = '/^' . preg_quote(self::missing(), '/') . "$function \\(/";
            if ($output !== 'works' && preg_match($named, $output) !== 1) {
                $wrong[$function] = $output;
            }
        }
        self::assertSame([], $wrong);
    }

    public function testAllMissingFunctionsAreNamed(): void
    {
        $server = self::server();
        $classes = self::classes($server);
        // Whoever disables these need not give up locks.
        $unnecessary = 'proc_open,exec,set_time_limit,ini_set,getenv,gethostbynamel,pcntl_async_signals,getmypid';
        self::assertSame('works', self::without($unnecessary, $classes, $server));
        $two = self::missing() . 'stream_select, stream_socket_client (';
        self::assertStringStartsWith($two, self::without('stream_socket_client,stream_select', $classes, $server));
    }

    public function testWithoutAProcessIdAForkWouldGoUnnoticed(): void
    {
        $server = self::server();
        $output = self::without('getmypid,posix_getpid', self::classes($server), $server);
        self::assertStringStartsWith(self::missing() . 'getmypid (', $output);
    }

    /** @group installed-php */
    public function testAScriptThatCannotForkNeedsNoProcessId(): void
    {
        $server = new Server();
        $fpm = Fpm::start(['disable_functions' => 'getmypid,posix_getpid']);
        $script = dirname(__DIR__) . '/Fpm/without-process-id.php';
        $request = new Request($fpm->socket('worker'), $script, ['server' => $server->tcp()]);
        // Debian's php-fpm has no pcntl, others may have it.
        $mayFork = $request->expect('forks') === 'yes';
        $mayFork
            ? self::assertStringContainsString('getmypid', $request->expect('holds'))
            : self::assertSame('true', $request->expect('holds'));
    }

    public function testNoRequiredFunctionIsUnused(): void
    {
        $required = array_merge(...array_values((new ReflectionClass(Requirements::class))->getConstants()));
        self::assertSame([], array_diff($required, self::functions()));
    }

    private static function server(): Server
    {
        return new Server(['--allow-kick'], remembers: true);
    }

    private static function missing(): string
    {
        return 'Lockd\Exception\ConnectException: lockd needs functions that this PHP does not have: ';
    }

    /** What the script prints in a PHP without these functions. */
    private static function without(string $functions, string $classes, Server $server): string
    {
        $ini = ['disable_functions' => $functions, 'display_errors' => '1', 'html_errors' => '0', 'log_errors' => '0',
            'error_reporting' => (string) (E_ALL & ~E_USER_WARNING), 'zend.assertions' => '1',
            'serialize_precision' => '17', 'lockd.library' => (string) getenv('LOCKD_LIBRARY')];
        $command = [PHP_BINARY];
        foreach ($ini as $key => $value) {
            array_push($command, '-d', "$key=$value");
        }
        $tcp = 'tcp://localhost:' . $server->port();
        array_push($command, __DIR__ . '/disabled-functions.php', $classes, $tcp, $server->unix());
        $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]], $pipes);
        self::assertIsResource($process);
        $output = (string) stream_get_contents($pipes[1]);
        proc_close($process);
        return $output;
    }

    /** A file that returns the files of all classes, so that loading them needs no function. */
    private static function classes(Server $server): string
    {
        $classes = [];
        foreach (self::files() as $file) {
            $classes['Lockd\\' . strtr(substr($file, strlen(self::SOURCE) + 1, -4), '/', '\\')] = $file;
        }
        $list = $server->directory() . '/classes.php';
        file_put_contents($list, '<?php return ' . var_export($classes, true) . ';');
        return $list;
    }

    /** @return list<string> the functions of PHP that the package calls */
    private static function functions(): array
    {
        $functions = [];
        foreach (self::files() as $file) {
            $tokens = array_values(array_filter(
                PhpToken::tokenize((string) file_get_contents($file)),
                static fn (PhpToken $token): bool => !$token->isIgnorable(),
            ));
            $notBefore = [T_OBJECT_OPERATOR, T_NULLSAFE_OBJECT_OPERATOR, T_DOUBLE_COLON, T_FUNCTION, T_NEW];
            foreach ($tokens as $at => $token) {
                $name = ltrim(strtolower($token->text), '\\');
                $isName = $token->is([T_STRING, T_NAME_FULLY_QUALIFIED]) && !$tokens[$at - 1]->is($notBefore);
                $isCall = ($tokens[$at + 1] ?? null)?->is('(') === true;
                if ($isName && $isCall && function_exists($name)) {
                    $functions[$name] = $name;
                }
            }
        }
        sort($functions);
        return $functions;
    }

    /** @return list<string> */
    private static function files(): array
    {
        $files = [];
        foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator(self::SOURCE)) as $file) {
            if ($file->getExtension() === 'php') {
                $files[] = $file->getPathname();
            }
        }
        return $files;
    }
}
