<?php
declare(strict_types=1);

/** One line of a scenario's transcript: what was done, and what came of it. */
function note(string $what, mixed $outcome): void
{
    echo $what, ': ', is_string($outcome) ? $outcome : json_encode($outcome), "\n";
}
