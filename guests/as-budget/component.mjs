// Wraps build/core.wasm into a component for the contract: `wasm-tools component embed` and `component new`.

import { readFile, writeFile } from 'node:fs/promises';
import { componentEmbed, componentNew } from '@bytecodealliance/jco-transpile/wasm-tools';

const binary = await readFile('build/core.wasm');
const witSource = await readFile('wit/controller.wit', 'utf8');
const embedded = await componentEmbed({ binary, witSource, world: 'controller' });
await writeFile('as-budget.wasm', await componentNew(embedded, []));
