<?php

/**
 * A client of the text protocols as one would have written it in 2009: it believes whatever comes. It stands in for
 * the class that old scripts were written for, to see that they notice no difference.
 */

declare(strict_types=1);

class lockc
{
    public $socket;

    public function __construct($host = '127.0.0.1', $port = 2626)
    {
        $this->socket = fsockopen($host, (int) $port, $errno, $errstr, 10);
    }

    public function ask($line)
    {
        fputs($this->socket, $line . "\n");
        return (int) fgets($this->socket, 1024);
    }

    public function lock($name, $shared = false)
    {
        return $this->ask(($shared ? 'sg ' : 'g ') . $name);
    }

    public function get($name, $shared = false)
    {
        return $this->lock($name, $shared);
    }

    public function unlock($name, $shared = false)
    {
        return $this->ask(($shared ? 'sr ' : 'r ') . $name);
    }

    public function release($name, $shared = false)
    {
        return $this->unlock($name, $shared);
    }

    public function is_locked($name, $shared = false)
    {
        return $this->ask(($shared ? 'si ' : 'i ') . $name);
    }

    public function check($name, $shared = false)
    {
        return $this->is_locked($name, $shared);
    }

    public function inspect($name, $shared = false)
    {
        return $this->is_locked($name, $shared);
    }
}
