<?php

declare(strict_types=1);

namespace Lockd\WordPress;

use Lockd\Exception\DeadlockException;
use Lockd\Exception\LockdException;

/**
 * Remembers since when lockd has granted no locks, and tells those who may manage the site: by a
 * notice on the pages of the administration, and in Site Health. What it knows is in an option of
 * the site, written when a lock fails and deleted when the server next answers a request for one.
 * It never asks a server, and reading it costs no query, because WordPress loads the option with all
 * others.
 *
 * @internal
 */
final class Outage
{
    private const OPTION = 'lockd_outage';

    public function register(): void
    {
        add_action('admin_notices', $this->notice(...));
        add_filter('site_status_tests', $this->siteHealthTests(...));
    }

    public function begins(LockdException $reason): void
    {
        // The first failure tells since when. A deadlock is no failure of the server.
        if (self::now() === null && !$reason instanceof DeadlockException) {
            $outage = ['since' => time(), 'host' => (string) gethostname(), 'reason' => $reason->getMessage()];
            update_option(self::OPTION, (string) json_encode($outage, JSON_INVALID_UTF8_SUBSTITUTE), true);
        }
    }

    public function ends(): void
    {
        if (self::now() !== null) {
            delete_option(self::OPTION);
        }
    }

    /** @return ?array{since: int, host: string, reason: string} null: there is no outage */
    private static function now(): ?array
    {
        // get_option() would query the database for an option that does not exist.
        $outage = json_decode((string) (wp_load_alloptions()[self::OPTION] ?? ''), true);
        if (!is_array($outage)) {
            return null;
        }
        [$since, $host, $reason] = [$outage['since'] ?? null, $outage['host'] ?? null, $outage['reason'] ?? null];
        return is_int($since) && is_string($host) && is_string($reason)
            ? ['since' => $since, 'host' => $host, 'reason' => $reason]
            : null;
    }

    private function notice(): void
    {
        $outage = self::now();
        if ($outage !== null && current_user_can('manage_options')) {
            echo '<div class="notice notice-error"><p><strong>', esc_html($this->headline($outage)), '</strong> ',
                esc_html($this->explanation($outage)), "</p></div>\n";
        }
    }

    /**
     * @param array<string, array<string, mixed>> $tests
     * @return array<string, array<string, mixed>>
     */
    private function siteHealthTests(array $tests): array
    {
        $tests['direct']['lockd'] = ['label' => 'lockd', 'test' => $this->siteHealth(...)];
        return $tests;
    }

    /** @return array<string, mixed> */
    private function siteHealth(): array
    {
        $outage = self::now();
        $text = $outage === null
            ? 'The server has answered the last request for a lock, or there has not been one.'
            : $this->explanation($outage);
        return [
            'label' => $outage === null ? 'lockd grants locks' : $this->headline($outage),
            'status' => $outage === null ? 'good' : 'critical',
            'badge' => ['label' => 'lockd', 'color' => 'blue'],
            'description' => '<p>' . esc_html($text) . '</p>',
            'actions' => '',
            'test' => 'lockd',
        ];
    }

    /** @param array{since: int, host: string, reason: string} $outage */
    private function headline(array $outage): string
    {
        $since = wp_date('Y-m-d H:i:s T', $outage['since']);
        return "Scheduled events do not run: lockd has granted no locks since $since.";
    }

    /** @param array{since: int, host: string, reason: string} $outage */
    private function explanation(array $outage): string
    {
        return "The first failure, on {$outage['host']}: {$outage['reason']}. WP-Cron's events, and all else that "
            . 'needs a lock, wait until the server answers. Start lockd, or correct LOCKD_URL in wp-config.php. '
            . 'PHP\'s error log has every failure. This message disappears when a request next gets an answer.';
    }
}
