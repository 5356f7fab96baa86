<?php

declare(strict_types=1);

namespace Lockd\Tests\Composer;

use RuntimeException;

/**
 * A PHP project in an empty directory, and a copy of this repository in its git repository, with
 * all changes that are not committed. Composer has a home of its own and no network. Deletes
 * everything when it is destroyed.
 */
final class Project
{
    /** A directory for the files of a test. */
    public readonly string $directory;
    /** The git repository, with a work tree. */
    public readonly string $repository;
    private string $project;

    public function __construct()
    {
        $this->directory = sys_get_temp_dir() . '/lockd-composer-' . bin2hex(random_bytes(6));
        $this->repository = "$this->directory/lockd";
        $this->project = "$this->directory/project";
        array_map(mkdir(...), [$this->directory, $this->repository, $this->project]);
        $this->run(['git', 'init', '--quiet', '--initial-branch=main', $this->repository]);
        $source = ['git', "--git-dir=$this->repository/.git", '--work-tree=' . dirname(__DIR__, 4)];
        $this->run([...$source, 'add', '--all']);
        $author = ['-c', 'user.name=test', '-c', 'user.email=test@localhost'];
        $this->run([...$source, ...$author, 'commit', '--quiet', '--message=all']);
        $this->run(['git', '-C', $this->repository, 'reset', '--quiet', '--hard']);
    }

    /** Installs what this composer.json requires; packages come from its own repositories alone. */
    public function require(string $json): void
    {
        $composer = json_decode($json, true, flags: JSON_THROW_ON_ERROR);
        $composer['repositories'][] = ['packagist.org' => false];
        file_put_contents("$this->project/composer.json", json_encode($composer));
        $this->run(['composer', 'update', '--no-interaction', "--working-dir=$this->project"]);
    }

    /** Where Composer has put this package. */
    public function package(): string
    {
        return "$this->project/vendor/lockd/lockd";
    }

    /** @return string what a script of the project prints that has Composer's autoloader */
    public function execute(string $code): string
    {
        file_put_contents("$this->project/script.php", "<?php\nrequire __DIR__ . '/vendor/autoload.php';\n$code");
        return $this->run([PHP_BINARY, "$this->project/script.php"]);
    }

    /**
     * @param list<string> $command
     * @return string what the command prints
     */
    public function run(array $command): string
    {
        $nowhere = 'http://127.0.0.1:1';
        $environment = [
            'PATH' => (string) getenv('PATH'),
            'HOME' => $this->directory,
            'COMPOSER_HOME' => "$this->directory/composer",
            'COMPOSER_ALLOW_SUPERUSER' => '1',
            'GIT_CONFIG_NOSYSTEM' => '1',
            'http_proxy' => $nowhere,
            'https_proxy' => $nowhere,
        ];
        $log = "$this->directory/log";
        $streams = [['file', '/dev/null', 'r'], ['pipe', 'w'], ['file', $log, 'w']];
        $process = proc_open($command, $streams, $pipes, $this->directory, $environment);
        if ($process === false) {
            throw new RuntimeException("cannot start $command[0]");
        }
        $output = (string) stream_get_contents($pipes[1]);
        if (proc_close($process) !== 0) {
            throw new RuntimeException(implode(' ', $command) . ":\n$output" . file_get_contents($log));
        }
        return $output;
    }

    public function __destruct()
    {
        exec('rm -rf ' . escapeshellarg($this->directory));
    }
}
