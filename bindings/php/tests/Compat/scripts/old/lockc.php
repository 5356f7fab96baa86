<?php

/**
 * A client of the text protocols as it might have been written in 2009: it trusts every reply. It
 * stands in for the class that old scripts were written for, to check that they notice no
 * difference.
 */

declare(strict_types=1);

class lockc
{
    public $host;
    public $port;
    public $timeout;
    public $fp = false;
    public $errno;
    public $errst;

    public function __construct($host = '127.0.0.1', $port = 2626, $timeout = 10)
    {
        $this->host = $host;
        $this->port = $port;
        $this->timeout = $timeout;
    }

    public function connect()
    {
        if (!$this->fp || feof($this->fp)) {
            $this->fp = fsockopen($this->host, (int) $this->port, $this->errno, $this->errst, $this->timeout);
        }
        return $this->fp ? true : false;
    }

    public function ask($line)
    {
        fputs($this->fp, $line . "\n");
        return (int) fgets($this->fp, 1024);
    }

    public function lock($name, $shared = false)
    {
        return $this->connect() ? $this->ask(($shared ? 'sg ' : 'g ') . $name) : 0;
    }

    public function get($name, $shared = false)
    {
        return $this->lock($name, $shared);
    }

    public function unlock($name, $shared = false)
    {
        return $this->connect() ? $this->ask(($shared ? 'sr ' : 'r ') . $name) : 0;
    }

    public function release($name, $shared = false)
    {
        return $this->unlock($name, $shared);
    }

    public function is_locked($name, $shared = false)
    {
        return $this->connect() ? $this->ask(($shared ? 'si ' : 'i ') . $name) : true;
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
