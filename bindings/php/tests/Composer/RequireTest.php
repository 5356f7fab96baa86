<?php

declare(strict_types=1);

namespace Lockd\Tests\Composer;

use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Projects that require this package with Composer, from each place that it can come from. */
final class RequireTest extends TestCase
{
    private static ?Project $project = null;

    public static function tearDownAfterClass(): void
    {
        self::$project = null;
    }

    protected function setUp(): void
    {
        self::$project ??= new Project();
        self::$project->run(['rm', '-rf', 'project/vendor', 'project/composer.lock']);
    }

    public function testAGitRepository(): void
    {
        self::$project->require($this->example());
        self::assertDirectoryExists(self::$project->package() . '/.git');
        self::assertALockIsAcquired();
    }

    public function testACheckout(): void
    {
        self::$project->require(str_replace('"vcs"', '"path"', $this->example(), $count));
        self::assertSame(1, $count);
        self::assertSame(self::$project->repository, realpath(self::$project->package()));
        self::assertALockIsAcquired();
    }

    /** As a package server offers it: its composer.json, and an archive of a release. */
    public function testAnArchive(): void
    {
        $project = self::$project;
        $archive = "$project->directory/lockd.tar";
        $project->run(['git', '-C', $project->repository, 'archive', '--format=tar', "--output=$archive", 'HEAD']);
        $package = self::manifest();
        $package['version'] = '1.2.3';
        $package['dist'] = ['type' => 'tar', 'url' => $archive];
        $packages = ['packages' => ['lockd/lockd' => ['1.2.3' => $package]]];
        file_put_contents("$project->directory/packages.json", json_encode($packages));
        $project->require((string) json_encode([
            'repositories' => [['type' => 'composer', 'url' => "file://$project->directory"]],
            'require' => ['lockd/lockd' => '^1.2'],
            'config' => ['preferred-install' => 'dist'],
        ]));
        self::assertDirectoryDoesNotExist($project->package() . '/.git');
        self::assertALockIsAcquired();
    }

    /** All of the package can be used: the files that are not classes are named by their paths. */
    public function testNothingIsLeftOut(): void
    {
        self::$project->require($this->example());
        foreach (['preload.php', 'lockd.h', 'compat/lockc.php', 'compat/pkLockClient.php'] as $file) {
            self::assertFileExists(self::$project->package() . "/bindings/php/$file");
        }
    }

    /** Old versions of Symfony Flex turn on the bundle of a package of this type only. */
    public function testFlexKnowsThatItIsABundle(): void
    {
        self::assertSame('symfony-bundle', self::manifest()['type']);
        $roots = array_keys(self::manifest()['autoload']['psr-4']);
        self::assertSame(['Lockd\\'], $roots);
        // It looks for this class where the root of the namespace is, and for this name in its file.
        $bundle = (string) file_get_contents(self::$project->repository . '/bindings/php/src/LockdBundle.php');
        self::assertStringContainsString('Symfony\Component\HttpKernel\Bundle\Bundle', $bundle);
    }

    /** @return array<string, mixed> */
    private static function manifest(): array
    {
        $json = (string) file_get_contents(self::$project->repository . '/composer.json');
        return json_decode($json, true, flags: JSON_THROW_ON_ERROR);
    }

    /** The README's composer.json, with the address of the copy. */
    private static function example(): string
    {
        $example = Recipe::in('README.md', '"repositories"', 'json');
        $repository = json_encode(self::$project->repository, JSON_UNESCAPED_SLASHES);
        return preg_replace('/"url": "[^"]*"/', '"url": ' . $repository, $example);
    }

    private static function assertALockIsAcquired(): void
    {
        $server = new Server();
        $script = <<<PHP
            \$client = Lockd\Client::connect('{$server->tcp()}');
            \$lock = \$client->acquire('from-composer', 0.0);
            echo \$client->inspect('from-composer')->holders, ' ';
            echo (new ReflectionClass(\$lock))->getFileName();
            PHP;
        $class = realpath(self::$project->package()) . '/bindings/php/src/Lock.php';
        self::assertSame("1 $class", self::$project->execute($script));
    }
}
