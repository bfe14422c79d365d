// A program for the hosted service, with the official client for Node: one flow for each of its uses. Three versions run it.
'use strict';
const assert = require('node:assert/strict');
const { createReadStream } = require('node:fs');
const { readFile } = require('node:fs/promises');
const { basename } = require('node:path');
const { Readable } = require('node:stream');
const { settings, run, download, receiver, Excluded, Otherwise } = require('./flows.cjs');

const CloudConvert = require(settings.package);
const IS_3 = settings.package.endsWith('-3');
const UPLOAD = { operation: 'import/upload' };
const RAW = { operation: 'import/raw', file: 'hello', filename: 'hello.txt' };
const EXPORT = input => ({ operation: 'export/url', input });

/** The client as it is. Over plain HTTP version 3 is told the server on the instance, version 2 by `https_proxy`. */
function client(key = settings.key) {
  const cc = new CloudConvert(key);
  if (settings.base && IS_3) {
    const call = cc.callWithBase.bind(cc);
    cc.callWithBase = (base, ...rest) => call(`${settings.base}${base.includes('sync') ? '/sync' : ''}/v2/`, ...rest);
  }
  return cc;
}

const cc = client();

/** For what the client has no method for: its own way to call. */
async function post(route, data) {
  if (IS_3) return cc.call('POST', route, data);
  return (await cc.axios.post(route, data)).data.data;
}

/** How a call is refused: what the client makes of it. */
async function refusal(promise) {
  const error = await promise.then(() => assert.fail('it is not refused'), error => error);
  if (!IS_3) return { status: error.response.status, body: error.response.data, message: error.response.statusText };
  assert.ok(error.cause instanceof Response, String(error));
  return { status: error.cause.status, body: await error.cause.json(), message: error.message };
}

async function uploaded(data, ...rest) {
  const task = await cc.tasks.create('import/upload');
  await cc.tasks.upload(task, data, ...rest);
  const { status, result } = await cc.tasks.wait(task.id);
  assert.equal(status, 'finished');
  return result.files[0];
}

const makeJob = (tasks, more) => cc.jobs.create({ tasks, ...more });
/** By the client's own method, where its version has one. */
const exportUrls = job => (cc.jobs.getExportUrls ? cc.jobs.getExportUrls(job) : (named(job, 'out').result?.files ?? []));
const named = (job, name) => job.tasks.find(task => task.name === name);

/** The instance with a socket: over plain HTTP one to this server, for the client knows its own host only. */
function listening() {
  const cc = client();
  if (settings.base) {
    const io = require(require.resolve('socket.io-client', { paths: [require.resolve(settings.package)] }));
    cc.socket = io.connect(settings.base, { transports: ['websocket'], forceNew: true });
    cc.subscribedChannels = new Map();
  }
  const event = subscribe => new Promise(resolve => subscribe(resolve));
  return { cc, event, shown: settings.base && new Otherwise('its socket is handed to it: the host is a literal in the client') };
}

run({
  async user() {
    const user = await cc.users.me();
    for (const key of ['id', 'username', 'email', 'created_at', 'credits']) assert.notEqual(user[key] ?? null, null, key);
  },

  async create() {
    // The command-line client sends the tasks in another order than they depend on each other.
    const job = await makeJob({ export: EXPORT('upload-0'), 'upload-0': UPLOAD, 'upload-1': UPLOAD }, { tag: 'drop-in' });
    assert.deepEqual([job.status, job.tag, job.tasks.length], ['waiting', 'drop-in', 3]);
    assert.deepEqual(job.tasks.map(task => task.name), ['export', 'upload-0', 'upload-1']);
    assert.deepEqual(named(job, 'export').depends_on_task_ids, [named(job, 'upload-0').id]);
    const task = await cc.tasks.create('import/upload', { name: 'upload-test' });
    assert.deepEqual([task.operation, task.status, 'name' in task], ['import/upload', 'waiting', false]);
  },

  async upload() {
    const file = await uploaded(createReadStream(settings.file));
    assert.deepEqual([file.filename, file.size], [basename(settings.file), settings.size]);
    const content = Buffer.from('hello');
    assert.equal((await uploaded(IS_3 ? content : Readable.from([content]), 'my file é.pdf', 5)).filename, 'my file é.pdf');
    // Version 2 sends a stream of unknown length in chunks; version 3 refuses to.
    if (!IS_3) assert.equal((await uploaded(Readable.from([content, content]), 'a.txt')).size, 10);
  },

  async wait() {
    const job = await makeJob({ in: UPLOAD, out: EXPORT('in') });
    const [asJob, asTask] = [cc.jobs.wait(job.id), cc.tasks.wait(named(job, 'out').id)];
    const first = await Promise.race([asJob, asTask, new Promise(resolve => setTimeout(resolve, 300, 'still waiting'))]);
    assert.equal(first, 'still waiting');
    await cc.tasks.upload(named(job, 'in'), createReadStream(settings.file));
    assert.deepEqual([(await asJob).status, (await asTask).status], ['finished', 'finished']);
  },

  async show() {
    const job = await makeJob({ in: RAW, out: EXPORT('in') });
    await cc.jobs.wait(job.id);
    const shown = await cc.jobs.get(job.id);
    assert.deepEqual([shown.id, shown.status, shown.tasks.length], [job.id, 'finished', 2]);
    const task = await cc.tasks.get(named(job, 'in').id, { include: 'payload' });
    assert.deepEqual([task.status, task.payload.filename], ['finished', 'hello.txt']);
    assert.equal('payload' in (await cc.tasks.get(task.id)), false);
  },

  async list() {
    const tag = `list-${Date.now()}`;
    const made = [await makeJob({ in: UPLOAD }, { tag }), await makeJob({ in: UPLOAD }, { tag })];
    const all = await cc.jobs.all({ 'filter[tag]': tag, 'filter[status]': '', include: 'tasks', per_page: 10 });
    assert.deepEqual(all.map(job => job.id), [made[1].id, made[0].id]);
    assert.equal(all[0].tasks[0].id, made[1].tasks[0].id);
    assert.deepEqual((await cc.jobs.all({ 'filter[tag]': tag, per_page: 1, page: 2 })).map(job => job.id), [made[0].id]);
    const tasks = await cc.tasks.all({ 'filter[job_id]': made[0].id, 'filter[status]': 'waiting' });
    assert.deepEqual(tasks.map(task => task.id), [made[0].tasks[0].id]);
  },

  async cancel() {
    const task = await cc.tasks.create('import/upload');
    const { status, code } = await cc.tasks.cancel(task.id);
    assert.deepEqual([status, code], ['error', 'CANCELLED']);
    assert.equal((await refusal(cc.tasks.cancel(task.id))).status, 422);
  },

  async retry() {
    const task = await cc.tasks.create('import/upload');
    await cc.tasks.cancel(task.id);
    const again = await post(`tasks/${task.id}/retry`);
    assert.deepEqual([again.status, again.retry_of_task_id, again.operation], ['waiting', task.id, 'import/upload']);
    assert.notEqual(again.id, task.id);
    return new Otherwise('the client has no method for it: by its own `call`');
  },

  async delete() {
    const job = await makeJob({ in: UPLOAD, out: EXPORT('in') });
    await cc.jobs.delete(job.id);
    assert.equal((await refusal(cc.jobs.get(job.id))).status, 404);
    const task = await cc.tasks.create('import/upload');
    await cc.tasks.delete(task.id);
    assert.equal((await refusal(cc.tasks.get(task.id))).status, 404);
  },

  async download() {
    const job = await makeJob({ in: UPLOAD, out: EXPORT('in') });
    await cc.tasks.upload(named(job, 'in'), createReadStream(settings.file));
    const file = exportUrls(await cc.jobs.wait(job.id))[0];
    assert.equal(file.filename, basename(settings.file));
    if (!settings.base) assert.ok(file.url.startsWith('https://'), 'the command-line client fetches with https only');
    const { status, headers, body } = await download(file.url);
    assert.deepEqual([status, headers['content-disposition']], [200, `attachment; filename="${file.filename}"`]);
    assert.ok(body.equals(await readFile(settings.file)));
    await cc.jobs.delete(job.id);
    assert.equal((await download(file.url)).status, 404, 'the link died with the job');
  },

  async failed() {
    const hook = await receiver();
    const job = await makeJob({ in: { operation: 'import/url', url: hook.url }, out: EXPORT('in') });
    const ended = await cc.jobs.wait(job.id);
    hook.close();
    assert.equal(ended.status, 'error');
    const [cause, result] = [named(ended, 'in'), named(ended, 'out')];
    assert.deepEqual([cause.status, result.code, result.message], ['error', 'INPUT_TASK_FAILED', 'Input task has failed']);
    assert.ok(cause.code && cause.code !== result.code && cause.message, 'the cause keeps its own code');
    assert.deepEqual(exportUrls(ended), []);
  },

  async unauthenticated() {
    const { status, body, message } = await refusal(client('wrong').users.me());
    assert.deepEqual([status, message], [401, 'Unauthorized']);
    assert.deepEqual(body, { message: 'Unauthenticated.', code: 'UNAUTHENTICATED' });
  },

  async 'not-found'() {
    const { status, message } = await refusal(cc.jobs.get('0d9b7a44-2d6f-4f0e-8a55-6f4d8f1f7a20'));
    assert.deepEqual([status, message], [404, 'Not Found']);
    assert.equal((await refusal(cc.tasks.get('none'))).status, 404);
  },

  async invalid() {
    const { status, body, message } = await refusal(makeJob({}));
    assert.equal(status, 422);
    assert.match(message, /^Unprocessable /);
    assert.deepEqual([body.code, body.message], ['INVALID_DATA', 'The given data was invalid.']);
    assert.deepEqual(body.errors, { tasks: ['The tasks field is required.'] });
    const nested = await refusal(makeJob({ out: EXPORT('nobody') }));
    assert.ok(Object.keys(nested.body.errors).every(key => key.startsWith('tasks.out')), JSON.stringify(nested.body));
  },

  async webhooks() {
    const url = 'http://127.0.0.1:9/nobody';
    const made = await post('webhooks', { url, events: ['job.created', 'job.finished', 'job.failed'] });
    assert.deepEqual([Number.isInteger(made.id), made.disabled, made.url], [true, false, url]);
    const list = async () => {
      const query = { 'filter[url]': url };
      if (IS_3) return cc.call('GET', 'users/me/webhooks', query);
      return (await cc.axios.get('users/me/webhooks', { params: query })).data.data;
    };
    assert.deepEqual((await list()).map(hook => hook.id), [made.id]);
    if (IS_3) await cc.call('DELETE', `webhooks/${made.id}`);
    else await cc.axios.delete(`webhooks/${made.id}`);
    assert.deepEqual(await list(), []);
    return new Otherwise('the client has no method for it: by its own `call`');
  },

  async signature() {
    const hook = await receiver();
    const webhook = await post('webhooks', { url: hook.url, events: ['job.created', 'job.finished', 'job.failed'] });
    // A non-ASCII name: the signature is of the bytes, and the client makes them of the text.
    const good = await makeJob({ in: { ...RAW, filename: 'é.txt' }, out: EXPORT('in') }, { tag: 'a/b é' });
    const bad = await makeJob({ in: { operation: 'import/url', url: hook.url } });
    for (const [event, job] of [['job.created', good], ['job.finished', good], ['job.failed', bad]]) {
      const { headers, body } = await hook.delivery(event, job.id);
      const signature = headers['cloudconvert-signature'];
      assert.ok(cc.webhooks.verify(body, signature, webhook.signing_secret), `${event} is not signed`);
      assert.ok(!cc.webhooks.verify(`${body} `, signature, webhook.signing_secret));
      assert.ok(!cc.webhooks.verify(body, signature, 'another secret'));
      assert.equal(headers['content-type'], 'application/json');
      assert.equal(JSON.parse(body).job.tasks[0].name, 'in');
    }
    if (IS_3) await cc.call('DELETE', `webhooks/${webhook.id}`);
    else await cc.axios.delete(`webhooks/${webhook.id}`);
    // A job's own address hears of its end, signed with the secret of the account.
    const own = await makeJob({ in: RAW }, { webhook_url: hook.url });
    const { headers, body } = await hook.delivery('job.finished', own.id);
    assert.ok(cc.webhooks.verify(body, headers['cloudconvert-signature'], settings.webhook_secret));
    hook.close();
  },

  async 'signed-url'() {
    if (!cc.signedUrls) throw new Excluded('this version cannot sign URLs');
    // Blanks and accents make `+` and `/` in base64, of which the client replaces only the first.
    const text = 'ÿþý>>>???ûûû÷÷÷ÿÿÿ~~~';
    const job = { tasks: { in: { ...RAW, file: text, filename: 'ünï ?>.txt' }, out: { ...EXPORT('in'), inline: true } } };
    const { base, secret } = settings.signed;
    const url = cc.signedUrls.sign(base, secret, job, `key_${Date.now()}`);
    assert.match(new URL(url).search.slice(5, -65), /[+/]/, 'the odd base64 is part of the test');
    const answers = [await fetch(url), await fetch(url)];
    for (const answer of answers) {
      assert.equal(answer.status, 200);
      assert.match(answer.headers.get('content-disposition'), /^inline/);
      assert.equal(await answer.text(), text);
    }
    assert.equal(answers[0].url.split('?')[0], answers[1].url.split('?')[0], 'the cache key gives the same result');
    assert.equal((await fetch(cc.signedUrls.sign(base, 'another secret', job))).status, 403);
  },

  async live() {
    const { cc, event, shown } = listening();
    const job = await makeJob({ in: UPLOAD, out: EXPORT('in') });
    const { id } = await cc.users.me();
    const events = Promise.all([
      event(resolve => cc.jobs.subscribeEvent(job.id, 'finished', resolve)),
      event(resolve => cc.jobs.subscribeTaskEvent(job.id, 'finished', resolve)),
      event(resolve => cc.tasks.subscribeEvent(named(job, 'in').id, 'finished', resolve)),
      event(resolve => cc.users.subscribeJobEvent(id, 'finished', resolve)),
      event(resolve => cc.users.subscribeTaskEvent(id, 'finished', resolve)),
    ]);
    await new Promise(resolve => setTimeout(resolve, 1000));
    await cc.tasks.upload(named(job, 'in'), createReadStream(settings.file));
    const [asJob, asTask, one] = await events;
    assert.deepEqual([asJob.job.id, asJob.job.status, asJob.job.tasks.length], [job.id, 'finished', 2]);
    assert.deepEqual([asTask.task.status, one.task.id], ['finished', named(job, 'in').id]);
    cc.closeSocket();
    return shown;
  },

  async 'live-late'() {
    const { cc, event, shown } = listening();
    const job = await makeJob({ in: RAW, out: EXPORT('in') });
    await cc.jobs.wait(job.id);
    const [ended, task] = await Promise.all([
      event(resolve => cc.jobs.subscribeEvent(job.id, 'finished', resolve)),
      event(resolve => cc.tasks.subscribeEvent(named(job, 'out').id, 'finished', resolve)),
    ]);
    assert.deepEqual([ended.job.status, task.task.result.files[0].filename], ['finished', 'hello.txt']);
    cc.closeSocket();
    return shown;
  },

  async 'standard-signature'() {
    throw new Excluded('the client knows its own signature only');
  },

  async redirect() {
    throw new Excluded('the client has no method for it');
  },
});
