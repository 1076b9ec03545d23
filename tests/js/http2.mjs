// One request over HTTP/2 and TLS: says what was agreed, what was answered, and whose certificate was shown.
import { connect } from "node:http2";
import { soon } from "./wait.mjs";

const session = connect(process.env.MOBO_URL, { rejectUnauthorized: false });
const answered = new Promise((resolve, reject) => {
  session.on("error", reject);
  const request = session.request({ ":path": "/livez" });
  request.on("error", reject);
  request.on("response", (headers) => resolve(headers[":status"]));
  request.resume();
});
const status = await soon("an answer", answered);
console.log(`${session.alpnProtocol} ${status} ${session.socket.getPeerCertificate().fingerprint256}`);
session.close();
