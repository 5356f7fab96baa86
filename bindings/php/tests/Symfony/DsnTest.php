<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Symfony\Dsn;
use Lockd\Symfony\LockdSemaphoreStore;
use Lockd\Symfony\LockdStore;
use Lockd\Symfony\StoreFactory;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\Exception\LockStorageException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Semaphore\Exception\InvalidArgumentException as SemaphoreInvalidArgument;
use Symfony\Component\Semaphore\Key as SemaphoreKey;

final class DsnTest extends TestCase
{
    private Server $server;
    private Key $key;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->key = new Key('resource');
    }

    /** @dataProvider addresses */
    public function testADsnBecomesAnAddress(string $dsn, string $url): void
    {
        self::assertTrue(Dsn::isMeantBy($dsn));
        self::assertSame($url, Dsn::parse($dsn)->url);
    }

    /** @return list<array{string, string}> */
    public static function addresses(): array
    {
        return [
            ['lockd://a', 'tcp://a'],
            ['lockd://a:1,b,[::1]:2/', 'tcp://a:1,tcp://b,tcp://[::1]:2'],
            ['lockd://a,b?auth-token-file=/etc/my%20secret&wait=1',
                'tcp://a?auth-token-file=/etc/my secret,tcp://b?auth-token-file=/etc/my secret'],
            ['lockd+tls://a,b:1?ca=/c+a.pem', 'tls://a?ca=/c+a.pem,tls://b:1?ca=/c+a.pem'],
            ['lockd+tls://a?key=k&cert=c&ca=a', 'tls://a?key=k&cert=c&ca=a'],
            ['lockd://a:1,b,[::1]:2?cluster&wait=1', 'tcp://a:1,b,[::1]:2'],
            ['lockd://b,a?resume&cluster', 'tcp://b,a?resume'],
            ['lockd+tls://a,b:1?ca=/c+a.pem&cluster', 'tls://a,b:1?ca=/c+a.pem'],
            ['lockd://a?cluster', 'tcp://a'],
            ['lockd+unix:///run/lockd/my%20lockd.sock?owner=a', 'unix:/run/lockd/my lockd.sock'],
        ];
    }

    public function testTheSecretIsInTheFileThatTheDsnNames(): void
    {
        $file = $this->server->directory() . '/the secret';
        file_put_contents($file, "0123456789abcdef0123456789abcdef\n");
        chmod($file, 0600);
        $server = new Server(['--auth-token-file', $file]);
        $dsn = Application::dsn($server);
        try {
            (new LockdStore($dsn))->save($this->key);
            self::fail('a lock was granted without the secret');
        } catch (LockStorageException $e) {
            self::assertStringContainsString('secret', $e->getMessage());
        }
        $store = new LockdStore("$dsn?auth-token-file=" . rawurlencode($file));
        $store->save($this->key);
        self::assertTrue($store->exists($this->key));
    }

    public function testALockInTls(): void
    {
        $directory = $this->server->directory();
        exec("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lockd \
            -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
            -keyout $directory/key.pem -out $directory/cert.pem 2>&1", $output, $status);
        self::assertSame(0, $status, implode("\n", $output));
        $tls = ['--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem"];
        $server = new Server(['--listen', 'message+tls://127.0.0.1:0', ...$tls]);
        Deadline::until('the server listens in TLS', static function () use ($server, &$found): bool {
            return preg_match('#message\+(tls://127\.0\.0\.1:\d+)#', $server->log(), $found) === 1;
        });
        $dsn = "lockd+$found[1]";
        $store = new LockdStore("$dsn?owner=shop&ca=$directory/cert.pem");
        $store->save($this->key);
        self::assertTrue($store->exists($this->key));
        $semaphores = new LockdSemaphoreStore("$dsn?ca=$directory/cert.pem");
        $slots = [new SemaphoreKey('slots', 2), new SemaphoreKey('slots', 2)];
        foreach ($slots as $slot) {
            $semaphores->save($slot, 300.0);
            self::assertTrue($semaphores->exists($slot));
        }
        $client = Client::connect($server->tcp());
        self::assertSame([1, 2], [$client->inspect('resource')->holders, $client->inspect('slots')->holders]);

        $this->expectException(LockStorageException::class);
        (new LockdStore($dsn))->save(new Key('not trusted'));
    }

    public function testReadsTheOptionsOfADsn(): void
    {
        $port = $this->server->port();
        $second = new Server();
        $hosts = "127.0.0.1:$port,127.0.0.1:{$second->port()}";
        $store = new LockdStore("lockd://$hosts/?owner=the%20shop%20+%201&timeout=2.5&wait=3");
        $store->save($this->key);
        $found = [];
        foreach ([$this->server, $second] as $server) {
            foreach (Client::connect($server->tcp())->list() as $lock) {
                $found[] = $lock->holders[0]->owner;
            }
        }
        self::assertSame(['the shop + 1'], $found);
    }

    public function testTheHostsOfAClusterAreOneServer(): void
    {
        [$standby, $nothing] = [Standby::start(), new Nothing()];
        $dsn = "lockd://$standby->place,$nothing->place,{$this->server->place()}?cluster";
        $store = new LockdStore($dsn);
        $keys = [];
        for ($number = 0; $number < 4; $number++) {
            $keys[] = new Key("resource/$number");
            $store->save($keys[$number]);
        }
        self::assertCount(4, [...Client::connect($this->server->tcp())->list('resource/')]);
        $slot = new SemaphoreKey('slots', 2);
        (new LockdSemaphoreStore($dsn))->save($slot, 300.0);
        self::assertSame(1, Client::connect($this->server->tcp())->inspect('slots')->holders);
    }

    public function testADsnConnectsWhenItIsNeeded(): void
    {
        $store = new LockdStore('lockd+unix:///nowhere/lockd.sock');
        self::assertFalse($store->exists($this->key));
        $store->delete($this->key);
        $this->expectException(LockStorageException::class);
        $store->save($this->key);
    }

    public function testADsnWithThePortOfATextProtocolSaysWhichPortIsMeant(): void
    {
        $silent = FakeServer::start(static fn () => null);
        $hosts = ["127.0.0.1:{$this->server->port('lockd')}", substr($silent->url, strlen('tcp://'))];
        foreach ($hosts as $host) {
            try {
                (new LockdStore("lockd://$host?timeout=1"))->save($this->key);
                self::fail('a lock was granted');
            } catch (LockStorageException $e) {
                self::assertStringContainsString('`message`', $e->getMessage());
                self::assertStringContainsString('20934', $e->getMessage());
            }
        }
    }

    /** @dataProvider invalidDsns */
    public function testRefusesAnInvalidDsn(string $dsn): void
    {
        $this->expectException(InvalidArgumentException::class);
        new LockdStore($dsn);
    }

    /** @return list<array{string}> */
    public function invalidDsns(): array
    {
        return [
            ['flock'],
            ['redis://localhost'],
            ['lockd://'],
            ['lockd://localhost:99999'],
            ['lockd://localhost/database'],
            ['lockd+unix://relative'],
            ['lockd://localhost?ttl=5'],
            ['lockd://localhost?timeout=soon'],
            ['lockd://localhost?owner[]=me'],
            ['lockd://localhost?owner=a&owner=b'],
            ['lockd://localhost?owner='],
            ['lockd://localhost?owner'],
            ['lockd://localhost?wait=-1'],
            ['lockd://localhost?wait=1e999'],
            ['lockd://localhost?timeout=0'],
            ['lockd://localhost?ca=/ca.pem'],
            ['lockd+tls://localhost?ca=/a%26b.pem'],
            ['lockd+tls://localhost?ca=/a,b.pem'],
            ['lockd+unix:///a,b.sock'],
            ['lockd+unix:///lockd.sock?cluster'],
            ['lockd://a,b?cluster=1'],
            ['lockd://a,b?cluster&cluster'],
            ['lockd://a,b,a:20934?cluster'],
            ['lockd+unix:///lockd.sock?auth-token-file=/secret'],
            ['lockds://localhost'],
            ['message+tls://localhost'],
            ['lockd://localhost?wait=1&'],
        ];
    }

    /** @dataProvider explained */
    public function testAMistakeIsExplained(string $dsn, string $says): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage($says);
        new LockdStore($dsn);
    }

    /** @return list<array{string, string}> */
    public static function explained(): array
    {
        $known = 'the options are owner, timeout, wait, resume, cluster, auth-token-file, ca, cert, key';
        return [
            ['lockd://localhost?ttl=5', "no option \"ttl\": $known"],
            ['lockd://localhost?auth_token_file=/secret', "no option \"auth_token_file\": $known"],
            ['lockd://localhost:2626', "text protocol \"lockd\", and a store speaks `message`"],
            ['lockd://a,b:9999?wait=1', "text protocol \"glockd\", and a store speaks `message`"],
            ['lockd://localhost:2626', '20934 by default'],
            ['lockd+unix:///lockd.sock?auth-token-file=/secret', 'LOCKD_AUTH_TOKEN_FILE'],
            ['message://localhost', 'a DSN is lockd://HOST'],
            ['tcp://localhost:20934', 'a DSN is lockd://HOST[:PORT][,HOST[:PORT]…]'],
            ['lockd://me:pw@localhost', 'has neither user nor password: the secret is in a file, which the option '
                . 'auth-token-file=FILE names, and not as in "lockd://me:pw@localhost"'],
            ['lockd://a,b?ca=/ca.pem', 'for lockd+tls://, and not as in "lockd://a,b?ca=/ca.pem"'],
            ['lockd://a,b:99999', '"b:99999" is not a host, or a host with a port from 1 to 65535: a DSN is lockd://'],
            ['lockd://localhost?timeout=0', 'the option "timeout" is a number of seconds above 0'],
        ];
    }

    /** What the application says whose configuration has such a mistake. */
    public function testTheApplicationsStoresExplainAnAddressThatIsNoDsn(): void
    {
        foreach (['tcp://localhost', 'tls://localhost', 'unix:/lockd.sock', 'message://localhost'] as $address) {
            foreach ([StoreFactory::createLockStore(...), StoreFactory::createSemaphoreStore(...)] as $create) {
                try {
                    $create($address);
                    self::fail("$address was taken for a DSN");
                } catch (InvalidArgumentException | SemaphoreInvalidArgument $e) {
                    self::assertStringContainsString("a DSN is lockd://HOST", $e->getMessage());
                    self::assertStringContainsString("and not \"$address\"", $e->getMessage());
                }
            }
        }
    }

    public function testOtherConnectionsAreNotOurs(): void
    {
        $others = ['flock', 'redis://lockd', 'in-memory', 'lockd', '/run/lockd.sock', 'mysql:host=lockd', null, $this];
        foreach ($others as $connection) {
            self::assertFalse(Dsn::isMeantBy($connection));
        }
    }
}
