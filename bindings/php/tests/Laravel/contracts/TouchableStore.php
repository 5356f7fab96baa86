<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel\contracts;

use Illuminate\Contracts\Cache\Store;

/** What Laravel 13 adds to its contract for stores. */
interface TouchableStore extends Store
{
    /**
     * @param string $key
     * @param int $seconds
     * @return bool
     */
    public function touch($key, $seconds);
}
