<?php

/**
 * Symfony's Lock component with locks on a lockd server.
 *
 *     php symfony.php [URL]
 *
 * URL is a server's address, tcp://127.0.0.1:20934 by default. The component comes from Composer,
 * in bindings/php/vendor, or from Debian's package php-symfony-lock.
 */

declare(strict_types=1);

use Lockd\Client;
use Lockd\Symfony\LockdStore;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\LockFactory;

require __DIR__ . '/../../bindings/php/autoload.php';

$composer = __DIR__ . '/../../bindings/php/vendor/autoload.php';
require is_file($composer) ? $composer : '/usr/share/php/Symfony/Component/Lock/autoload.php';

$url = $argv[1] ?? 'tcp://127.0.0.1:20934';

/** Ends the script unless the condition holds. */
function must(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "failed: $what\n");
        exit(1);
    }
}

// Each store is one owner of locks, with its own connection, as if these were two processes. In an
// application a store is created from a DSN, such as new LockdStore('lockd://127.0.0.1'), and
// connects when it is first used.
$ours = new LockFactory(new LockdStore(Client::connect($url, 'ours')));
$theirs = new LockFactory(new LockdStore(Client::connect($url, 'theirs')));

$invoice = $ours->createLock('invoice/17');
must($invoice->acquire(), 'a free lock');
must(!$theirs->createLock('invoice/17')->acquire(), 'a busy lock');
// This asks the server: it returns false once the connection is lost.
must($invoice->isAcquired(), 'a lock that is held');
echo "we hold invoice/17, and they do not get it\n";

// Reading is shared. A reader can become the writer without releasing the lock, and go back.
$invoice->acquireRead();
$reader = $theirs->createLock('invoice/17');
must($reader->acquireRead(), 'a second reader');
must(!$invoice->acquire(), 'a writer while another one reads');
echo "both of us read it, so nobody writes\n";
$reader->release();
must($invoice->acquire(), 'a reader that is alone');
echo "they are done, and we write\n";
$invoice->release();

// acquire(true) waits in the server's queue, without polling. A store does not wait for a lock that
// it holds itself.
must($theirs->createLock('invoice/17')->acquire(true), 'a free lock, waited for');
$first = $ours->createLock('invoice/18');
$first->acquire();
try {
    $ours->createLock('invoice/18')->acquire(true);
    must(false, 'a store does not wait for itself');
} catch (LockConflictedException) {
    echo "we would wait for ourselves\n";
}

// A time to live is not needed and is ignored: the lock ends with its holder.
$import = $ours->createLock('import', ttl: 0.001, autoRelease: false);
must($import->acquire(), 'a lock with a time to live');
must(!$import->isExpired() && $import->isAcquired(), 'a lock does not expire');
unset($import);
must($theirs->createLock('import')->acquire(), 'a lock is released with its key');
echo "a lock goes with its key, or with its process\n";
