<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Tests\Support\Server;
use RuntimeException;

/**
 * A Symfony application in a directory of its own, with the FrameworkBundle and a kernel as in a new
 * project. It runs scripts in processes of their own, with its container compiled and dumped. Knows
 * nothing of locks.
 */
final class Application
{
    private const KERNEL = <<<'PHP'
        <?php
        namespace App;
        final class Kernel extends \Symfony\Component\HttpKernel\Kernel
        {
            use \Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
        }
        PHP;

    /** What a new project has, apart from what the test is about. */
    private const FRAMEWORK = <<<'YAML'
        framework:
            secret: test
            test: true
            router: { utf8: true }
            http_method_override: false
        YAML;

    /**
     * Composer's autoloader, or that of Debian's package, and the classes of the application. The
     * FrameworkBundle of Debian is older than this PHP, which finds fault with how it is written.
     */
    private const START = <<<'PHP'
        <?php
        error_reporting(E_ALL & ~E_DEPRECATED & ~E_USER_DEPRECATED);
        ini_set('display_errors', 'stderr');
        $debian = '/usr/share/php/Symfony/Bundle/FrameworkBundle/autoload.php';
        class_exists(Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait::class) || require $debian;
        spl_autoload_register(static function (string $class): void {
            $file = __DIR__ . '/src/' . strtr(substr($class, 4), '\\', '/') . '.php';
            str_starts_with($class, 'App\\') && is_file($file) && require $file;
        });
        $kernel = new App\Kernel('test', false);
        $kernel->boot();
        $container = $kernel->getContainer()->get('test.service_container');

        PHP;

    private readonly string $directory;

    /** @param array<string, string> $environment variables of the scripts */
    public function __construct(private array $environment)
    {
        $this->directory = sys_get_temp_dir() . '/lockd-symfony-' . bin2hex(random_bytes(6));
        $this->write('src/Kernel.php', self::KERNEL);
        $this->write('config/bundles.php', "<?php\nreturn [\n"
            . "    Symfony\\Bundle\\FrameworkBundle\\FrameworkBundle::class => ['all' => true],\n"
            . "    Lockd\\LockdBundle::class => ['all' => true],\n];\n");
        $this->write('config/packages/framework.yaml', self::FRAMEWORK);
        $this->write('config/routes.yaml', '{}');
        $this->write('composer.json', '{}');
    }

    /** @param string $path below the directory of the application */
    public function write(string $path, string $text): void
    {
        $file = "$this->directory/$path";
        if (!is_dir(dirname($file))) {
            mkdir(dirname($file), 0700, true);
        }
        file_put_contents($file, $text);
    }

    public function directory(): string
    {
        return $this->directory;
    }

    /**
     * Executes a script that has the booted `$kernel`, and its `$container` with the private
     * services that are used.
     *
     * @param array<string, string> $environment further variables, or other values
     * @return array{string, int} what it prints, and its exit status
     */
    public function run(string $script, array $environment = []): array
    {
        $this->write('run.php', self::START . $script);
        $bootstrap = dirname(__DIR__) . '/bootstrap.php';
        $command = [PHP_BINARY, '-d', "auto_prepend_file=$bootstrap", "$this->directory/run.php"];
        $environment += $this->environment + getenv();
        $streams = [1 => ['pipe', 'w'], 2 => ['redirect', 1]];
        $process = proc_open($command, $streams, $pipes, $this->directory, $environment);
        if ($process === false) {
            throw new RuntimeException("cannot start $command[0]");
        }
        $output = (string) stream_get_contents($pipes[1]);
        return [$output, proc_close($process)];
    }

    /** The address of a server as a DSN. */
    public static function dsn(Server $server): string
    {
        return "lockd://{$server->host()}:{$server->port()}";
    }

    public function __destruct()
    {
        self::remove($this->directory);
    }

    private static function remove(string $directory): void
    {
        foreach (array_diff(scandir($directory) ?: [], ['.', '..']) as $name) {
            $path = "$directory/$name";
            is_dir($path) ? self::remove($path) : unlink($path);
        }
        rmdir($directory);
    }
}
