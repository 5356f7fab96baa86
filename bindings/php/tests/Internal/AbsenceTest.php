<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Internal\Absence;
use PHPUnit\Framework\TestCase;

final class AbsenceTest extends TestCase
{
    public function testAnUnknownHostIsAMistakeAndAnAbsentResolverIsNot(): void
    {
        $failed = 'php_network_getaddresses: getaddrinfo for a failed: ';
        self::assertTrue(Absence::isOfResolver("{$failed}Temporary failure in name resolution"));
        self::assertFalse(Absence::isOfResolver("{$failed}Name or service not known"));
    }

    public function testTheLibrarysTextsAreToldApart(): void
    {
        foreach (
            [
                'tcp://a:1 cannot be reached: Connection refused (os error 111)' => true,
                'unix:/a cannot be reached: No such file or directory (os error 2)' => true,
                'unix:/a cannot be reached: Permission denied (os error 13)' => false,
                'tcp://a:1 cannot be reached: connection timed out' => true,
                'tls://a:1 cannot be reached: no answer to the TLS handshake in time' => true,
                'tcp://a cannot be reached: its host name cannot be resolved: failed to lookup address information: '
                    . 'Temporary failure in name resolution' => true,
                'tcp://a cannot be reached: its host name cannot be resolved: failed to lookup address information: '
                    . 'Name or service not known' => false,
                'no session on tcp://a: it has not answered in time: it hangs (2626, or 9999; and so on)' => true,
                'no session on tcp://a: the server reported an error: too many connections' => true,
                'no session on tcp://a: reading from the server failed: Connection reset (os error 104)' => true,
                'no session on tcp://a: the secret in /b cannot be read: No such file (os error 2)' => false,
                'no session on tcp://a: the server is stopping' => true,
                'tcp://a:1,b:2 cannot be reached: no server of the group is active: a:1: Connection refused '
                    . '(os error 111); b:2: standby' => true,
                'tcp://a,b:2 cannot be reached: no place of the group answers: a: its host name cannot be resolved: '
                    . 'Name or service not known; b:2: it has not answered in time: it hangs' => true,
                'tcp://a,b cannot be reached: no place of the group is known: a: its host name cannot be resolved: '
                    . 'Name or service not known; b: its host name cannot be resolved: Name or service not known'
                    => false,
                'no session on tcp://b:2: this server is a standby of the cluster shop; the active server is a:1'
                    => true,
                'no session on b:2: the secret in /s is not this server\'s' => false,
                'no session on tcp://a: it speaks TLS there: write tls:// instead of tcp://' => false,
                'no session on unix:/it has not answered in time: what nobody knows' => false,
                'what nobody knows' => false,
                '' => false,
            ] as $text => $isAbsence
        ) {
            self::assertSame($isAbsence, Absence::isInText($text), $text);
        }
    }

    public function testOneMistakeAmongSeveralServersIsAMistake(): void
    {
        $refused = 'tcp://a cannot be reached: Connection refused (os error 111)';
        $mistake = 'no session on tcp://b: authToken is wrong';
        $group = 'tcp://c:1,d:2 cannot be reached: no server of the group is active: c:1: Connection refused '
            . '(os error 111); d:2: standby';
        self::assertTrue(Absence::isInText("$refused; $group; $refused"));
        self::assertFalse(Absence::isInText("$group; $mistake"));
        self::assertTrue(Absence::isInText("$refused; $refused"));
        self::assertFalse(Absence::isInText("$refused; $mistake"));
        self::assertFalse(Absence::isInText("$mistake; $refused"));
    }
}
