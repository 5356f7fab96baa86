/**
 * Runs PHP 8.1, compiled to WebAssembly, as `php` would run. It has no sockets, processes or fibers,
 * and sees only the given directories of this machine.
 *
 *     node php-8.1.mjs NODE_MODULES DIRECTORY… -- ARGUMENT…
 */

import { createRequire } from 'node:module';

const separator = process.argv.indexOf('--');
const [modules, ...directories] = process.argv.slice(2, separator);
const packages = createRequire(modules + '/');
const { loadPHPRuntime, PHP } = packages('@php-wasm/universal');
const { getPHPLoaderModule } = packages('@php-wasm/node-8-1');

const php = new PHP(await loadPHPRuntime(await getPHPLoaderModule()));
for (const directory of directories) {
    php.mkdir(directory);
    await php.mount(directory, (instance, files, point) => {
        files.mount(files.filesystems.NODEFS, { root: directory }, point);
        return () => files.unmount(point);
    });
}
php.chdir(process.cwd());
const response = await php.cli(['php', ...process.argv.slice(separator + 1)]);
const to = (stream) => new WritableStream({ write: (bytes) => void stream.write(bytes) });
await Promise.all([response.stdout.pipeTo(to(process.stdout)), response.stderr.pipeTo(to(process.stderr))]);
process.exitCode = await response.exitCode;
