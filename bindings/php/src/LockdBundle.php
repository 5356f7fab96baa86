<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Symfony\DeduplicationRefusal;
use Lockd\Symfony\StoreFactoryPass;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\DependencyInjection\Reference;
use Symfony\Component\HttpKernel\Bundle\Bundle;

/**
 * Makes an application accept a DSN of a lockd wherever it accepts one for locks or semaphores, in
 * Symfony 5.4 and later. It has no configuration. All other DSNs mean what they meant before.
 *
 * It is in the package's root namespace because Symfony Flex looks for a bundle there.
 */
final class LockdBundle extends Bundle
{
    private const DEDUPLICATION = 'messenger.middleware.deduplicate_middleware';

    public function build(ContainerBuilder $container): void
    {
        $container->addCompilerPass(new StoreFactoryPass());
        $container->register('lockd.' . self::DEDUPLICATION, DeduplicationRefusal::class)
            // Messenger has it since Symfony 7.3, and applications need not have Messenger.
            ->setDecoratedService(self::DEDUPLICATION, null, 0, ContainerInterface::IGNORE_ON_INVALID_REFERENCE)
            ->setArguments([new Reference('lockd.' . self::DEDUPLICATION . '.inner')]);
    }
}
