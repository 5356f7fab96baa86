<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Message\Address;
use PHPUnit\Framework\TestCase;

/** Addresses are parsed as in the Rust client. */
final class AddressTest extends TestCase
{
    /**
     * @testWith ["tcp://a:1", "tcp://a:1"]
     *           ["tcp://a", "tcp://a:20934"]
     *           ["message://127.0.0.1:65535", "tcp://127.0.0.1:65535"]
     *           ["tcp://[::1]:7", "tcp://[::1]:7"]
     *           ["unix:/run/lockd.sock", "unix:///run/lockd.sock"]
     */
    public function testAddressesAreParsed(string $text, string $remote): void
    {
        self::assertSame($remote, Address::parse($text)->remote);
    }

    /**
     * @testWith ["tcp://a:"]
     *           ["tcp://a:0"]
     *           ["tcp://a:+80"]
     *           ["tcp://a:-1"]
     *           ["tcp://a:080"]
     *           ["tcp://a:00080"]
     *           ["tcp://a:0x50"]
     *           ["tcp://a:65536"]
     *           ["tcp://a:100000"]
     */
    public function testAPortIsDecimalDigitsFrom1To65535WithoutLeadingZeros(string $text): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('port');
        Address::parse($text);
    }

    /**
     * @testWith ["tcp://a?ca=/ca.pem"]
     *           ["message://a:1?auth-token-file=/s&cert=/c&key=/k"]
     */
    public function testTlsFilesAreRefusedWithoutTls(string $text): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('ca=, cert= and key= are for tls://');
        Address::parse($text);
    }

    /**
     * @testWith ["tcp://a:1", false, "tcp://a:1", "tcp://a:1?resume"]
     *           ["tcp://a:1?resume", true, "tcp://a:1", "tcp://a:1?resume"]
     *           ["message://a?auth-token-file=/s&resume", true, "message://a", "message://a?auth-token-file=/s&resume"]
     *           ["tls://a?resume&ca=/c", true, "tls://a", "tls://a?ca=/c&resume"]
     *           ["unix:/run/lockd.sock", false, "unix:/run/lockd.sock", "unix:/run/lockd.sock?resume"]
     *           ["unix:///run/lockd.sock?resume", true, "unix:///run/lockd.sock", "unix:///run/lockd.sock?resume"]
     */
    public function testAnAddressMayAskForASessionThatResumes(string $text, bool $asks, string $key, string $on): void
    {
        $address = Address::parse($text);
        self::assertSame([$asks, $key], [$address->resumes, $address->text]);
        self::assertSame($text, Address::withResume($text, null));
        self::assertSame($on, Address::withResume($text, true));
        $off = Address::withResume("$text,tcp://another?resume", false);
        self::assertStringNotContainsString('resume', $off);
        self::assertSame([$key, 'tcp://another'], array_keys(Address::parseList($off)));
        self::assertSame(Address::parse($key)->remote, $address->remote);
    }

    /**
     * @testWith ["tcp://a?resume="]
     *           ["tcp://a?resume=1"]
     *           ["tcp://a?resume&"]
     *           ["tcp://a?"]
     *           ["tcp://a?resumes"]
     */
    public function testAnOptionThatIsNotKnownIsRefused(string $text): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('?resume');
        Address::parse($text);
    }

    /**
     * @testWith ["tcp://b:20934,a:20934", "tcp://a:20934,b:20934", ["tcp://b:20934", "tcp://a:20934"]]
     *           ["tcp://b , a:1", "tcp://a:1,b", ["tcp://b:20934", "tcp://a:1"]]
     *           ["tls://[::1]:7,a,A?ca=/x", "tls://A,[::1]:7,a", ["tcp://[::1]:7", "tcp://a:20934", "tcp://A:20934"]]
     *           ["message://b,10,9?resume", "message://10,9,b", ["tcp://b:20934", "tcp://10:20934", "tcp://9:20934"]]
     *           ["tcp://a:9,a:10", "tcp://a:10,a:9", ["tcp://a:9", "tcp://a:10"]]
     * @param list<string> $remotes
     */
    public function testAServerMayHaveSeveralPlaces(string $url, string $key, array $remotes): void
    {
        $list = Address::parseList($url);
        self::assertSame([$key], array_keys($list));
        $address = $list[$key];
        $places = $address->places();
        self::assertSame($remotes, array_map(static fn (Address $place): string => $place->remote, $places));
        foreach ($places as $place) {
            self::assertSame([$address->isTls, $address->resumes], [$place->isTls, $place->resumes]);
            self::assertSame([$place], $place->places());
        }
        // The order of the places stays as it is written.
        $expected = str_replace([' ', '?resume'], '', $url);
        self::assertSame($expected, Address::withResume($url, false));
        $resuming = Address::parse(Address::withResume($url, true));
        self::assertTrue($resuming->resumes && $resuming->places()[1]->resumes);
        self::assertSame($key, $resuming->text);
    }

    public function testAPartOfAListWithASchemeIsAnotherServer(): void
    {
        $list = 'tcp://a,b?resume , tcp://d,c:1,unix:/e?resume,tls://f,g?ca=/x&cert=/y';
        $addresses = Address::parseList($list);
        self::assertSame(['tcp://a,b', 'tcp://c:1,d', 'unix:/e', 'tls://f,g'], array_keys($addresses));
        $urls = array_map(static fn (Address $address): string => $address->url, array_values($addresses));
        $expected = ['tcp://a,b?resume', 'tcp://d,c:1', 'unix:/e?resume', 'tls://f,g?ca=/x&cert=/y'];
        self::assertSame($expected, $urls);
        $resuming = 'tcp://a,b?resume,tcp://d,c:1?resume,unix:/e?resume,tls://f,g?ca=/x&cert=/y&resume';
        self::assertSame($resuming, Address::withResume($list, true));
    }

    /**
     * @testWith ["tcp://a,", "\"tcp://a,\""]
     *           ["tcp:// a,b", "a port from"]
     *           ["tcp://a,,b", "\"tcp://a,,b\""]
     *           ["tcp://a,b:0", "a port from 1 to 65535"]
     *           ["tcp://a,b?ca=/x", "are for tls://"]
     *           ["tcp://a?resume,b", "comes before the ?"]
     *           ["tcp://a?auth-token-file=/x,y", "comes before the ?"]
     *           ["unix:/a,b", "did you mean tcp://b?"]
     *           ["tcp://a,/b", "did you mean unix:/b?"]
     *           ["a,b:1", "did you mean tcp://a,b:1?"]
     *           ["tcp://a,b,a:20934", "\"tcp://a:20934\" is in the list twice"]
     *           ["tcp://a,b,tcp://c,b", "\"tcp://b\" is in the list twice"]
     *           ["tcp://a,glockd://b", "speak `message`"]
     */
    public function testAWrongListIsRefused(string $list, string $says): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage($says);
        Address::parseList($list);
    }

    /**
     * @testWith ["127.0.0.1:20934", "tcp://127.0.0.1:20934"]
     *           ["localhost", "tcp://localhost"]
     *           ["[::1]:7", "tcp://[::1]:7"]
     *           ["/run/lockd.sock", "unix:/run/lockd.sock"]
     */
    public function testAnAddressWithoutASchemeIsRefusedWithASuggestion(string $text, string $meant): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage("did you mean $meant?");
        Address::parse($text);
    }

    /**
     * @testWith ["tcp://a?auth-token-file=/nowhere/secret", "auth-token-file="]
     *           ["tcp://a", "the environment variable LOCKD_AUTH_TOKEN_FILE"]
     */
    public function testASecretThatCannotBeReadSaysWhyAndWhoNamesIt(string $text, string $where): void
    {
        putenv('LOCKD_AUTH_TOKEN_FILE=/nowhere/secret');
        try {
            Address::parse($text)->secret();
            self::fail('there is no secret');
        } catch (ConnectException $e) {
            $expected = "the secret in /nowhere/secret, which $where names, cannot be read: No such file or directory";
            self::assertSame($expected, $e->getMessage());
        } finally {
            putenv('LOCKD_AUTH_TOKEN_FILE');
        }
    }

    public function testADirectoryIsNoSecret(): void
    {
        $this->expectException(ConnectException::class);
        $this->expectExceptionMessage('Is a directory');
        Address::parse('tcp://a?auth-token-file=/')->secret();
    }
}
