<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Symfony\Component\DependencyInjection\Compiler\AbstractRecursivePass;
use Symfony\Component\DependencyInjection\Definition;
use Symfony\Component\Lock\Store\StoreFactory as SymfonysLockStores;
use Symfony\Component\Semaphore\Store\StoreFactory as SymfonysSemaphoreStores;

/**
 * Replaces Symfony's factories of stores by {@see StoreFactory}, wherever a service of the
 * application is made by them: by `framework.lock`, by `framework.semaphore`, or in its own
 * configuration. Looks at factories only, not at DSNs, which are not known yet.
 *
 * @internal
 */
final class StoreFactoryPass extends AbstractRecursivePass
{
    protected function processValue(mixed $value, bool $isRoot = false): mixed
    {
        if ($value instanceof Definition && is_array($value->getFactory())) {
            $ours = match ($value->getFactory()) {
                [SymfonysLockStores::class, 'createStore'] => 'createLockStore',
                [SymfonysSemaphoreStores::class, 'createStore'] => 'createSemaphoreStore',
                default => null,
            };
            if ($ours !== null) {
                $value->setFactory([StoreFactory::class, $ours]);
            }
        }
        return parent::processValue($value, $isRoot);
    }
}
