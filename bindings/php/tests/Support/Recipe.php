<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * An example of the documentation, executed as it stands. Knows nothing of what the examples do; a
 * test that uses it says what must come out.
 */
final class Recipe
{
    /** Functions that the examples call for the work under a lock. */
    private const WORK = '/\b(writeTheReport|renderTheImage)\(/';

    /**
     * The first example of a document with this text in it.
     *
     * @param string $document its path below the directory of the package
     */
    public static function in(string $document, string $text, string $language = 'php'): string
    {
        $document = dirname(__DIR__, 2) . "/$document";
        $pattern = "/^```$language\n([^`]*" . preg_quote($text, '/') . '[^`]*)^```$/m';
        return preg_match($pattern, (string) file_get_contents($document), $parts) === 1
            ? $parts[1]
            : throw new RuntimeException("$document has no example in $language with $text");
    }

    /**
     * Executes a script in a process of its own, with the classes of the package, of its tests and
     * of the frameworks.
     *
     * @param Server $server its directory is where the script is written
     * @return array{string, int} what it prints, and its exit status
     */
    public static function run(string $example, Server $server): array
    {
        $example = str_replace('// At most four processes are here.', 'theWork();', $example);
        $example = preg_replace(self::WORK, 'theWork(', $example);
        $script = $server->directory() . '/example.php';
        file_put_contents($script, "<?php\n$example\nfunction theWork(): void\n{\n    echo 'called';\n}\n");
        $command = [PHP_BINARY, '-d', 'auto_prepend_file=' . dirname(__DIR__) . '/bootstrap.php', $script];
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['pipe', 'w']], $pipes);
        if ($process === false) {
            throw new RuntimeException("cannot start $command[0]");
        }
        $output = stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]);
        return [$output, proc_close($process)];
    }
}
