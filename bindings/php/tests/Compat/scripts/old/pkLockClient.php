<?php

/**
 * A client of pkLockServer as it might have been written in 2009: it trusts every reply and keeps
 * the time limits itself. It stands in for the class that old scripts were written for, to check
 * that they notice no difference.
 */

declare(strict_types=1);

class pkLockClient
{
    public $options;
    public $socket;
    public $id = 0;

    public function __construct($options = array())
    {
        $this->options = $options;
    }

    public function connect()
    {
        if (!$this->socket) {
            $host = isset($this->options['host']) ? $this->options['host'] : 'localhost';
            $port = isset($this->options['port']) ? $this->options['port'] : 20934;
            $this->socket = @fsockopen($host, (int) $port, $errno, $errstr, 10);
        }
        return $this->socket ? true : false;
    }

    public function poll()
    {
        return $this->socket ? true : false;
    }

    public function flush()
    {
        return true;
    }

    public function lock($name, $options = array())
    {
        $limit = isset($options['timeLimit']) ? $options['timeLimit'] : 30;
        $result = $this->rpc('lock', array('lockName' => (string) $name), array('timeLimit' => $limit));
        if ($result === false) {
            $this->unlock($name);
            return false;
        }
        return $result['status'] == 'ok';
    }

    public function unlock($name)
    {
        if ($this->socket) {
            $this->send(array('command' => 'unlock', 'lockName' => (string) $name));
            do {
                $answer = $this->receive();
            } while (!isset($answer['attempted']));
        }
        return true;
    }

    public function rpc($command, $parameters = array(), $options = array())
    {
        if (!$this->connect()) {
            return false;
        }
        $id = $this->id++;
        $this->send(array('command' => $command, 'parameters' => (object) $parameters, 'id' => $id));
        $limit = isset($options['timeLimit']) ? $options['timeLimit'] : 30;
        $end = microtime(true) + $limit;
        do {
            $left = $limit === false ? 3600 : max(0.1, $end - microtime(true));
            $readable = array($this->socket);
            $none = null;
            if (!stream_select($readable, $none, $none, (int) $left, (int) (fmod($left, 1) * 1000000))) {
                return false;
            }
            $message = $this->receive();
        } while (!isset($message['id']) || $message['id'] !== $id);
        return $message['result'];
    }

    public function send($message)
    {
        $json = json_encode($message);
        fwrite($this->socket, pack('N', strlen($json)) . $json);
    }

    public function receive()
    {
        stream_set_timeout($this->socket, 60);
        $header = unpack('N', $this->bytes(4));
        return json_decode($this->bytes($header[1]), true);
    }

    public function bytes($length)
    {
        $bytes = '';
        while (strlen($bytes) < $length) {
            $bytes .= fread($this->socket, $length - strlen($bytes));
        }
        return $bytes;
    }
}
