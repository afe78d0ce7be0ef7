// A Matrix client that shares no code with ours: matrix-js-sdk, which trusts devices only if their owner signed
// them. Started as `node signed_only.mjs PATH/OF/matrix-js-sdk/lib/index.js`. Every line of standard input is a
// request, {"id": 1, "do": "send", ...}; every line of standard output answers one, {"id": 1, "result": ...} or
// {"id": 1, "error": "..."}. The end of standard input is the end.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The library speaks to the console; standard output is for answers alone.
for (const name of ["trace", "debug", "log", "info", "warn", "error"]) {
    console[name] = (...words) => process.stderr.write(`${name}: ${words.map(String).join(" ")}\n`);
}

const sdkFile = pathToFileURL(process.argv[2]).href;
const sdk = await import(sdkFile);
const { OnlySignedDevicesIsolationMode } = await import(new URL("crypto-api/index.js", sdkFile).href);

let client = null;
let identifier = null;
const seen = new Map(); // event id -> event, in the order of arrival
let wake = () => {};
let news = new Promise((resolve) => (wake = resolve));

function notice(event) {
    if (event?.getId()?.startsWith("$")) seen.set(event.getId(), event);
    wake();
    news = new Promise((resolve) => (wake = resolve));
}

function described(event) {
    const relation = event.getWireContent()["m.relates_to"] ?? event.getContent()["m.relates_to"];
    return {
        event_id: event.getId(),
        sender: event.getSender(),
        text: event.isDecryptionFailure() ? null : (event.getContent().body ?? null),
        failure: event.isDecryptionFailure() ? event.decryptionFailureReason : null,
        encrypted: event.isEncrypted(),
        relation: relation ?? null,
    };
}

async function until(find, withinMs, what) {
    const deadline = Date.now() + withinMs;
    for (;;) {
        const found = await find();
        if (found) return found;
        const leftMs = deadline - Date.now();
        if (leftMs <= 0) throw new Error(`after ${withinMs} ms: no ${what}`);
        await Promise.race([news, new Promise((resolve) => setTimeout(resolve, Math.min(leftMs, 200)))]);
    }
}

const isSaid = (event) => ["m.room.message", "m.room.encrypted"].includes(event.getType());
const inRoom = (room) => [...seen.values()].filter((event) => event.getRoomId() === room && isSaid(event));

const requests = {
    async login({ url, user, password }) {
        identifier = { type: "m.id.user", user };
        const asked = { type: "m.login.password", identifier, password };
        const device = await sdk.createClient({ baseUrl: url }).loginRequest(asked);
        client = sdk.createClient({
            baseUrl: url,
            userId: device.user_id,
            deviceId: device.device_id,
            accessToken: device.access_token,
        });
        await client.initRustCrypto({ useIndexedDB: false });
        client.getCrypto().setDeviceIsolationMode(new OnlySignedDevicesIsolationMode());
        client.on("Room.timeline", notice);
        client.on("Event.decrypted", notice);
        await client.startClient({ initialSyncLimit: 100 });
        await until(() => client.getSyncState() === "SYNCING", 15_000, "first sync");
        return { user_id: device.user_id, device_id: device.device_id };
    },

    async bootstrap({ password }) {
        await client.getCrypto().bootstrapCrossSigning({
            authUploadDeviceSigningKeys: (send) => send({ type: "m.login.password", identifier, password }),
        });
        return client.getCrypto().isCrossSigningReady();
    },

    async create({ invite }) {
        const content = { algorithm: "m.megolm.v1.aes-sha2" };
        const asked = { preset: "private_chat", invite, initial_state: [{ type: "m.room.encryption", state_key: "", content }] };
        const room = (await client.createRoom(asked)).room_id;
        await until(() => client.getRoom(room)?.hasEncryptionStateEvent(), 15_000, "encryption of our room");
        return room;
    },

    async join({ room }) {
        await client.joinRoom(room);
        await until(() => client.getRoom(room)?.getMyMembership() === "join", 15_000, "membership");
        return null;
    },

    async member({ room, user }) {
        const joined = () => client.getRoom(room)?.getMember(user)?.membership === "join";
        await until(joined, 15_000, "such member");
        return null;
    },

    async send({ room, text }) {
        return (await client.sendEvent(room, "m.room.message", { msgtype: "m.text", body: text })).event_id;
    },

    // The first message that reads so.
    async wait({ room, text, within_ms }) {
        const find = () => inRoom(room).map(described).find((event) => event.text === text);
        return until(find, within_ms, `such text, but ${JSON.stringify(inRoom(room).map(described))}`);
    },

    // The event of that id, once it is decrypted or has failed to be.
    async outcome({ room, event_id, within_ms }) {
        const find = () => {
            const event = seen.get(event_id);
            const isDone = event && !event.isBeingDecrypted() && (event.isDecryptionFailure() || event.getContent().body);
            return isDone ? described(event) : null;
        };
        return until(find, within_ms, `outcome in ${room}`);
    },
};

async function answer(line) {
    const { id, do: name, ...rest } = JSON.parse(line);
    let said;
    try {
        said = { id, result: (await requests[name](rest)) ?? null };
    } catch (error) {
        said = { id, error: String(error?.message ?? error).slice(0, 2000) };
    }
    process.stdout.write(`${JSON.stringify(said)}\n`);
}

for await (const line of createInterface({ input: process.stdin })) await answer(line);
client?.stopClient();
process.exit(0);
