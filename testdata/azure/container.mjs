// Makes a container of Azurite's account, as rbuild does not: `node container.mjs ACCOUNT_URL NAME ACCOUNT KEY`.
import { webcrypto } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

// Debian 12's node, 18, has this under its own name only.
globalThis.crypto ??= webcrypto;
// Where `npm install --global` puts things: beside node, or where Debian's npm does.
const roots = [resolve(process.execPath, '../../lib/node_modules'), '/usr/local/lib/node_modules'];
const root = roots.find((root) => existsSync(`${root}/@actions/cache`)) ?? roots[0];
const { ContainerClient, StorageSharedKeyCredential } = createRequire(`${root}/@actions/cache/lib/`)('@azure/storage-blob');

const [url, name, account, key] = process.argv.slice(2);
await new ContainerClient(`${url}/${name}`, new StorageSharedKeyCredential(account, key)).create();
