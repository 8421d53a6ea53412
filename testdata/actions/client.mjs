// GitHub's own client of its cache service (`@actions/cache`, and Azure's of its storage below it), as a program, by which the stand-in of
// `image/registry/src/testing/actions.rs` is shown to be one. Installed as scripts/test.sh does.
//
//   node client.mjs save|restore DIRECTORY KEY     what actions/cache does: an archive of a directory, and back, by how the key begins
//   node client.mjs write KEY VERSION FILE         an entry that is this file, sent in blocks
//   node client.mjs read KEY VERSION FILE          the entry that begins so, into this file
//
// Prints the id or the key of the entry; fails where there is none.
import { webcrypto } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

// Debian 12's node, 18, has this under its own name only.
globalThis.crypto ??= webcrypto;
// Where `npm install --global` puts things: beside node, or where Debian's npm does. To ask npm takes half a second.
const roots = [resolve(process.execPath, '../../lib/node_modules'), '/usr/local/lib/node_modules'];
const cache = `${roots.find((root) => existsSync(`${root}/@actions/cache`)) ?? roots[0]}/@actions/cache/lib/`;
const { saveCache, restoreCache } = await import(pathToFileURL(`${cache}cache.js`));
const { internalCacheTwirpClient } = await import(pathToFileURL(`${cache}internal/shared/cacheTwirpClient.js`));
const { BlockBlobClient } = createRequire(cache)('@azure/storage-blob');

const [command, one, other, file] = process.argv.slice(2);
const client = internalCacheTwirpClient({ maxAttempts: 1 });
const block = 1 << 20;

const commands = {
    save: () => saveCache([one], other),
    restore: () => restoreCache([one], 'none', [other]),
    async write() {
        const { signedUploadUrl } = await client.CreateCacheEntry({ key: one, version: other });
        const blocks = { blockSize: block, maxSingleShotSize: block };
        await new BlockBlobClient(signedUploadUrl).uploadFile(file, blocks);
        const sizeBytes = `${statSync(file).size}`;
        return (await client.FinalizeCacheEntryUpload({ key: one, version: other, sizeBytes })).entryId;
    },
    async read() {
        const found = await client.GetCacheEntryDownloadURL({ key: one, restoreKeys: [one], version: other });
        if (!found.ok) return undefined;
        await new BlockBlobClient(found.signedDownloadUrl).downloadToFile(file);
        return found.matchedKey;
    },
};

const outcome = await commands[command]();
if (outcome === undefined || outcome === -1) process.exit(1);
console.log(outcome);
