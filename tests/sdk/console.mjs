// The console in a real browser: headless Chromium, driven by Playwright.
//
//   console.mjs --admin URL --mcp URL --gate PID --binary PATH --config PATH --victim NAME:PID [--shots FOLDER]
//
// Prints one line of JSON for each verdict: name, good, told, seconds. It kills the endpoint and Tidegate
// that it is told of, by their ids, and starts Tidegate again. With --shots it takes the pictures of the
// manual instead.

import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { Traffic } from './console_traffic.mjs';

const text = { type: 'string' };
const { values: args } = parseArgs({
    options: { admin: text, mcp: text, gate: text, binary: text, config: text, victim: text, shots: text },
});
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const [VICTIM, VICTIM_PID] = [args.victim.split(':')[0], Number(args.victim.split(':')[1])];
const PAGE = `${args.admin}/console`;
const SECONDS = 10;

// What the page may take, as the manual says it.
const FIRST_PAINT_MS = 300;
const TRANSFER_BYTES = 150_000;
const NOTICED_MS = 2000;

const api = async path => (await fetch(`${args.admin}/v1/${path}`)).json();
const ofApi = async name => (await api('status')).pools[0].endpoints.find(endpoint => endpoint.name === name);
const traffic = new Traffic(args.mcp);

/** Errors of the page since it was last asked; those of a lost connection are wanted at times. */
const wrong = [];
function watch(page) {
    page.on('pageerror', error => wrong.push(`error: ${error.message}`));
    page.on('console', message => ['error', 'warning'].includes(message.type()) && wrong.push(message.text()));
    return page;
}

const isShown = locator => locator.waitFor({ state: 'visible', timeout: SECONDS * 1000 });

/** Waits until `holds`, and returns what it returned. */
async function until(what, holds) {
    const end = Date.now() + SECONDS * 1000;
    for (;;) {
        const found = await holds();
        if (found) return found;
        if (Date.now() > end) throw new Error(`${what}: not within ${SECONDS} s`);
        await sleep(20);
    }
}

function expect(what, holds, told = '') {
    if (!holds) throw new Error(`${what}${told === '' ? '' : `: ${told}`}`);
}

const row = (page, name) => page.locator(`tr[data-endpoint="p/${name}"]`);
const badge = (page, name) => row(page, name).locator('[data-state]');

async function measure(browser) {
    const paints = [];
    let bytes = 0;
    // The best of a few, for a busy machine says nothing about the page.
    for (let turn = 0; turn < 12 && !(turn >= 3 && Math.min(...paints) < FIRST_PAINT_MS); turn++) {
        const context = await browser.newContext();
        const page = watch(await context.newPage());
        await page.goto(PAGE);
        await isShown(page.locator('[data-link="live"]'));
        const seen = await page.evaluate(() => ({
            paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime,
            bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
                .filter(({ name }) => !name.includes('/v1/'))
                .reduce((sum, { transferSize }) => sum + transferSize, 0),
        }));
        paints.push(seen.paint);
        bytes = seen.bytes;
        await context.close();
    }
    const best = Math.min(...paints);
    expect('first paint', best < FIRST_PAINT_MS, `${best} ms`);
    expect('transfer', bytes > 10_000 && bytes < TRANSFER_BYTES, `${bytes} bytes`);
    return `first paint ${paints.map(paint => paint.toFixed(0)).join(', ')} ms (under ${FIRST_PAINT_MS}), ${bytes} bytes (under ${TRANSFER_BYTES})`;
}

async function waits(browser) {
    const context = await browser.newContext();
    const page = watch(await context.newPage());
    await page.route('**/v1/events', async route => {
        await sleep(2000);
        await route.continue();
    });
    await page.goto(PAGE);
    await isShown(page.locator('body.is-loading [data-link="connecting"]'));
    await isShown(page.getByText('Asking for the state of the pools'));
    await isShown(page.locator('body:not(.is-loading) [data-link="live"]'));
    await isShown(page.getByText('No client has a session now.'));
    await isShown(page.getByText('No tool was called yet.'));
    await context.close();
    return 'connecting, then empty';
}

async function agrees(page) {
    await until('sessions are the same', async () => {
        const { pools, totals } = await api('status');
        for (const endpoint of pools[0].endpoints) {
            const state = await badge(page, endpoint.name).getAttribute('data-state');
            const sessions = await row(page, endpoint.name).locator('[data-label="Sessions"]').textContent();
            if (state !== endpoint.state || Number(sessions) !== endpoint.sessions) return false;
        }
        return Number(await page.locator('[data-now="sessions"]').textContent()) === totals.sessions;
    });
    const rate = await until('a rate', async () => Number(await page.locator('[data-now="requests_per_second"]').textContent()) || 0);
    expect('tools', await until('tools', async () => (await page.locator('#tools tbody tr').count()) > 0));
    expect('the version', (await page.locator('#version').textContent()) === (await api('info')).version);
    expect('the configuration', (await page.locator('#config-text').textContent()).includes('pools:'));
    const line = await page.locator('#chart-requests .line.first').last().getAttribute('d');
    expect('a line', line.split('L').length > 2, line);
    return `${rate} requests/s, ${await page.locator('#tools tbody tr').count()} tools`;
}

async function untrusted(page) {
    await isShown(page.locator('#sessions td').filter({ hasText: traffic.evil }).first());
    expect('it is text', (await page.locator('main img, main script').count()) === 0);
    expect('nothing ran', (await page.evaluate(() => window.ran)) === undefined);
    return traffic.evil;
}

async function search(page) {
    const rows = page.locator('#sessions tbody tr');
    await page.locator('#q').fill('inspector');
    await until('one kind is left', async () => {
        const names = await page.locator('#sessions [data-label="Client"]').allTextContents();
        return names.length > 0 && names.every(name => name.includes('inspector'));
    });
    const count = await rows.count();
    await page.locator('#q').fill('nobody has this');
    await isShown(page.getByText('No session has “nobody has this” in it.'));
    await page.locator('#q').fill('');
    await until('all are back', async () => (await rows.count()) > count);
    return `${count} of ${traffic.sessions.length}`;
}

async function drains(page, name) {
    const dialog = page.locator('dialog[open]');
    const button = row(page, name).getByRole('button');
    await button.click();
    await isShown(dialog);
    expect('it asks first', (await ofApi(name)).admin.state === 'up');
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    expect('cancelled', (await ofApi(name)).admin.state === 'up' && (await dialog.count()) === 0);
    await button.click();
    await dialog.getByRole('radio', { name: /^Drain/ }).check();
    await dialog.getByRole('textbox', { name: 'Out after' }).fill('nonsense');
    await dialog.getByRole('button', { name: `Drain ${name}` }).click();
    await isShown(dialog.getByText('Not done:'));
    await dialog.getByRole('textbox', { name: 'Out after' }).fill('10m');
    const asked = Date.now();
    await dialog.getByRole('button', { name: `Drain ${name}` }).click();
    await isShown(row(page, name).locator('[data-state="drain"]'));
    const took = Date.now() - asked;
    expect('it drains', (await ofApi(name)).admin.out_in_seconds > 500);
    await isShown(page.locator('#feed li[data-topic="operator"]').filter({ hasText: `drain p/${name}` }).first());
    await button.click();
    await dialog.getByRole('radio', { name: /^Weight/ }).check();
    await dialog.getByRole('textbox', { name: 'Weight' }).fill('3');
    await dialog.getByRole('button', { name: `Weigh ${name}` }).click();
    await until('its weight', async () => (await row(page, name).locator('[data-label="Weight"]').textContent()) === '3');
    await button.click();
    await dialog.getByRole('button', { name: `Make ${name} ready` }).click();
    await isShown(row(page, name).locator('[data-state="up"]'));
    return `shown ${took} ms after the click`;
}

async function ends(page) {
    const before = (await api('status')).totals.sessions;
    await page.locator('#q').fill('inspector');
    await until('found', async () => (await page.locator('#sessions tbody tr').count()) === 1);
    await page.getByRole('button', { name: /^End session/ }).click();
    await isShown(page.locator('dialog[open]'));
    await page.getByRole('button', { name: 'End the session' }).click();
    await isShown(page.getByText('No session has “inspector” in it.'));
    await page.locator('#q').fill('');
    expect('one is gone', (await api('status')).totals.sessions === before - 1);
    return `${before} sessions, then ${before - 1}`;
}

async function keyboard(page) {
    await page.reload();
    await isShown(page.locator('#sessions tbody tr').first());
    await isShown(row(page, VICTIM).getByRole('button'));
    await page.keyboard.press('Tab');
    const reached = new Set();
    const focused = () => page.evaluate(() => {
        const { activeElement: on } = document;
        const box = on.getBoundingClientRect();
        if (on === document.body) return { name: '' };
        return { name: on.id || on.getAttribute('aria-label') || on.textContent, seen: box.width > 0 && getComputedStyle(on).outlineStyle !== 'none' };
    });
    for (let press = 0; press < 60; press++) {
        const { name, seen } = await focused();
        if (name === '' || reached.has(name)) break;
        reached.add(name);
        expect('focus is seen', seen, name);
        await page.keyboard.press('Tab');
    }
    for (const wanted of ['Skip to pools', 'Pools', 'theme', `Manage p/${VICTIM}`, 'feed', 'q', 'config-text']) {
        expect('reached', reached.has(wanted), `${wanted} not among ${[...reached].join(', ')}`);
    }
    await row(page, VICTIM).getByRole('button').focus();
    await page.keyboard.press('Enter');
    await isShown(page.locator('dialog[open]'));
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Escape');
    await until('closed', async () => (await page.locator('dialog[open]').count()) === 0);
    expect('focus is back', (await focused()).name === `Manage p/${VICTIM}`, (await focused()).name);
    return `${reached.size} places`;
}

async function axe(page, where) {
    await page.evaluate(AXE);
    const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    expect(where, grave.length === 0, JSON.stringify(grave.map(({ id, nodes }) => [id, nodes.slice(0, 3).map(node => [node.html.slice(0, 200), node.failureSummary])])));
    return `${where}: ${passes.length} rules, ${violations.length} minor findings`;
}

async function accessible(page) {
    const told = [];
    for (const theme of ['light', 'dark']) {
        await until(theme, async () => {
            const now = await page.evaluate(() => document.documentElement.dataset.theme);
            if (now !== theme) await page.locator('#theme').click();
            return now === theme;
        });
        told.push(await axe(page, theme));
        await row(page, VICTIM).getByRole('button').click();
        await isShown(page.locator('dialog[open]'));
        told.push(await axe(page, `${theme}, with the question`));
        await page.keyboard.press('Escape');
    }
    return told.join('; ');
}

async function narrow(browser) {
    const context = await browser.newContext({ viewport: { width: 390, height: 844 } });
    const page = watch(await context.newPage());
    await page.goto(PAGE);
    await isShown(page.locator('#sessions tbody tr').first());
    await isShown(page.locator('#tools tbody tr').first());
    const width = await page.evaluate(() => document.scrollingElement.scrollWidth);
    expect('no sideways scrolling', width <= 390, `${width} px`);
    const out = await page.evaluate(() => [...document.querySelectorAll('button, a, input, .badge, td')]
        .filter(element => element.getClientRects().length > 0 && !element.closest('.skip, .hide'))
        .filter(element => element.getBoundingClientRect().right > 391)
        .map(element => element.textContent.slice(0, 30)));
    expect('nothing is cut off', out.length === 0, out.join(', '));
    await row(page, VICTIM).getByRole('button').click();
    const box = await page.locator('dialog[open]').boundingBox();
    expect('the question fits', box.x >= 0 && box.x + box.width <= 390, JSON.stringify(box));
    const told = await axe(page, '390 px');
    await context.close();
    return `${width} px wide; ${told}`;
}

async function dies(page) {
    const killed = Date.now();
    process.kill(VICTIM_PID, 'SIGKILL');
    await isShown(row(page, VICTIM).locator('[data-state="down"]'));
    const took = Date.now() - killed;
    expect('in time', took < NOTICED_MS, `${took} ms`);
    await isShown(page.locator('#feed li[data-topic="health"][data-weight="bad"]').filter({ hasText: `p/${VICTIM}` }).first());
    return `shown ${took} ms after it was killed (under ${NOTICED_MS})`;
}

async function lost(page) {
    process.kill(Number(args.gate), 'SIGKILL');
    await isShown(page.locator('#lost'));
    await isShown(page.locator('body.is-stale [data-link="lost"]'));
    const child = spawn(args.binary, ['-c', args.config], { stdio: 'ignore' });
    try {
        await isShown(page.locator('body:not(.is-stale) [data-link="live"]'));
        expect('the banner is gone', !(await page.locator('#lost').isVisible()));
        await isShown(badge(page, VICTIM));
    } finally {
        child.kill();
        await new Promise(resolve => child.once('exit', resolve));
    }
    // That nobody answers is an error to the browser, and here it is meant to be one.
    wrong.splice(0, wrong.length, ...wrong.filter(said => !/ERR_|Failed to load resource/.test(said)));
    return 'said so, and went on with the next process';
}

async function shots(browser) {
    await sleep(60_000);
    process.kill(VICTIM_PID, 'SIGKILL');
    for (const colorScheme of ['light', 'dark']) {
        const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 700 } });
        const page = await context.newPage();
        await page.goto(PAGE);
        await isShown(page.locator('#sessions tbody tr').first());
        await sleep(15_000);
        const path = `${args.shots}/console-${colorScheme}.png`;
        await page.screenshot({ path });
        console.log(`${path}: ${statSync(path).size} bytes`);
        await context.close();
    }
}

async function all(browser) {
    const tell = async (name, check) => {
        const begun = Date.now();
        let [good, told] = [true, ''];
        try {
            told = await check();
        } catch (error) {
            [good, told] = [false, error.message.slice(0, 1500)];
        }
        console.log(JSON.stringify({ name: `console: ${name}`, good, told, seconds: (Date.now() - begun) / 1000 }));
    };
    await tell('waits, and says that there is nothing', () => waits(browser));
    await traffic.start();
    await tell('is quick and small', () => measure(browser));
    const context = await browser.newContext({ viewport: { width: 1400, height: 1000 } });
    const page = watch(await context.newPage());
    await page.goto(PAGE);
    await tell('shows what the API says', () => agrees(page));
    await tell('what clients say is only text', () => untrusted(page));
    await tell('search among sessions', () => search(page));
    await tell('asks before it drains', () => drains(page, 'ts0'));
    await tell('ends a session', () => ends(page));
    await tell('is used by keyboard', () => keyboard(page));
    await tell('axe finds nothing grave', () => accessible(page));
    await tell('fits into 390 px', () => narrow(browser));
    await tell('an endpoint that dies', () => dies(page));
    await traffic.stop();
    await tell('a lost connection', () => lost(page));
    await tell('no errors in the browser', async () => expect('errors', wrong.length === 0, wrong.join('; ')) ?? 'none');
}

const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Its sandbox wants a user other than root.
    args: process.getuid() === 0 ? ['--no-sandbox'] : [],
});
try {
    if (args.shots) {
        await traffic.start();
        await shots(browser);
    } else {
        await all(browser);
    }
} finally {
    await traffic.stop();
    await browser.close();
}
