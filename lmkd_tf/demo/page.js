"use strict";
// Hops of int16 samples go to the server over a WebSocket and come back enhanced.
(() => {
  const RESERVE_HOPS = 6; // held before playing: 96 ms against jitter
  const LEAD_HOPS = 16; // a recording is sent so far ahead of what is heard
  const MAX_WAITING_HOPS = 64; // of the microphone: beyond that the server is too slow
  const MAX_FILE_BYTES = 200e6, MAX_FILE_SECONDS = 1800, MAX_SAVED_SECONDS = 600;
  const get = (id) => document.getElementById(id);
  const limit = get("limit"), bypass = get("bypass");
  let session = null;

  function say(text, isError = false) {
    get("status").textContent = text;
    get("status").classList.toggle("is-error", isError);
  }

  // What is drawn of one direction: level and spectrogram.
  class Signal {
    constructor(name) {
      this.bar = get("meter-" + name).firstElementChild;
      this.level = get("level-" + name);
      this.canvas = get("picture-" + name);
      this.drawing = this.canvas.getContext("2d", { willReadFrequently: true });
      this.link = get("save-" + name);
      this.clear();
    }

    clear() {
      this.saved = [];
      this.numSaved = 0;
      this.past = new Float32Array(512);
      this.link.hidden = true;
      get("kept").textContent = "";
      this.drawing.fillStyle = "#000004";
      this.drawing.fillRect(0, 0, this.canvas.width, this.canvas.height);
    }

    take(hop, rate) { // int16
      if (this.numSaved < MAX_SAVED_SECONDS * rate) {
        this.saved.push(hop);
        this.numSaved += hop.length;
      } else if (!get("kept").textContent) { // once, for screen readers
        get("kept").textContent = `Only the first ${MAX_SAVED_SECONDS / 60} minutes are kept for saving.`;
      }
      let power = 1e-10;
      this.past.copyWithin(0, hop.length);
      for (let i = 0; i < hop.length; i += 1) {
        const sample = hop[i] / 32768;
        this.past[512 - hop.length + i] = sample;
        power += (sample * sample) / hop.length;
      }
      const level = 10 * Math.log10(power);
      this.level.textContent = (level < -90 ? "silent" : level.toFixed(0) + " dBFS");
      this.bar.style.width = Math.max(0, Math.min(100, (100 * (level + 70)) / 70)) + "%";
      this.draw();
    }

    draw() {
      const { width, height } = this.canvas;
      const column = this.drawing.createImageData(1, height);
      powers(this.past).forEach((power, bin) => {
        const share = Math.max(0, Math.min(1, (10 * Math.log10(power + 1e-10) + 60) / 80));
        color(share).forEach((value, i) => { column.data[4 * (height - 1 - bin) + i] = value; });
        column.data[4 * (height - 1 - bin) + 3] = 255;
      });
      this.drawing.drawImage(this.canvas, -1, 0);
      this.drawing.putImageData(column, width - 1, 0);
    }

    offer(rate) {
      if (!this.saved.length) return;
      URL.revokeObjectURL(this.link.href);
      this.link.href = URL.createObjectURL(wav(this.saved, rate));
      this.link.hidden = false;
    }
  }

  function color(share) { // dark to bright, after matplotlib's "inferno"
    const anchors = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
    const place = share * (anchors.length - 1), low = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[low].map((value, i) => value + (place - low) * (anchors[low + 1][i] - value));
  }

  function powers(samples) { // 128 bands of two bins each, by a transform of 512 points
    const size = samples.length, real = new Float32Array(size), imaginary = new Float32Array(size);
    for (let i = 0; i < size; i += 1) {
      let reversed = 0;
      for (let bit = 1, k = i; bit < size; bit <<= 1, k >>= 1) reversed = (reversed << 1) | (k & 1);
      real[reversed] = samples[i] * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
    }
    for (let half = 1; half < size; half *= 2) {
      for (let k = 0; k < half; k += 1) {
        const cosine = Math.cos((Math.PI * k) / half), sine = -Math.sin((Math.PI * k) / half);
        for (let i = k; i < size; i += 2 * half) {
          const j = i + half;
          const r = real[j] * cosine - imaginary[j] * sine, m = real[j] * sine + imaginary[j] * cosine;
          real[j] = real[i] - r; imaginary[j] = imaginary[i] - m;
          real[i] += r; imaginary[i] += m;
        }
      }
    }
    return Array.from({ length: size / 4 }, (_, b) =>
      Math.max(real[2 * b] ** 2 + imaginary[2 * b] ** 2, real[2 * b + 1] ** 2 + imaginary[2 * b + 1] ** 2));
  }

  function wav(hops, rate) {
    const numBytes = 2 * hops.reduce((sum, hop) => sum + hop.length, 0);
    const head = new DataView(new ArrayBuffer(44));
    [..."RIFF"].forEach((c, i) => head.setUint8(i, c.charCodeAt(0)));
    [..."WAVEfmt "].forEach((c, i) => head.setUint8(8 + i, c.charCodeAt(0)));
    [..."data"].forEach((c, i) => head.setUint8(36 + i, c.charCodeAt(0)));
    head.setUint32(4, 36 + numBytes, true);
    head.setUint32(16, 16, true);
    head.setUint16(20, 1, true);
    head.setUint16(22, 1, true);
    head.setUint32(24, rate, true);
    head.setUint32(28, 2 * rate, true);
    head.setUint16(32, 2, true);
    head.setUint16(34, 16, true);
    head.setUint32(40, numBytes, true);
    return new Blob([head, ...hops], { type: "audio/wav" });
  }

  const signals = { in: new Signal("in"), out: new Signal("out") };

  function asInt16(samples) {
    return Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))));
  }

  function settings() { // the right end of the slider is no limit, which is 0
    const decibels = limit.value === limit.max ? 0 : Number(limit.value);
    get("limit-text").textContent = decibels ? decibels + " dB" : "no limit";
    return { attenuation_limit_db: decibels, is_bypassed: bypass.checked };
  }

  class Session {
    constructor() {
      this.numSent = this.numHeard = this.numPlayed = this.dropouts = 0;
      this.sentAt = [];
      this.isEnding = false;
    }

    async open() {
      const token = new URLSearchParams(location.search).get("token");
      this.socket = new WebSocket(`ws://${location.host}/stream?token=${encodeURIComponent(token)}`);
      this.socket.binaryType = "arraybuffer";
      this.socket.onclose = () => this.close("The server ended the stream.", true);
      this.frame = await new Promise((resolve, reject) => {
        this.socket.onerror = () => reject(new Error("The server cannot be reached. Is lmkd-demo running?"));
        this.socket.onmessage = ({ data }) => {
          const message = JSON.parse(data);
          if (message.error) reject(new Error(message.error));
          else resolve(message);
        };
      });
      this.socket.onmessage = ({ data }) => this.receive(data);
      const rate = this.frame.sample_rate_hz;
      get("delay").textContent = ((1000 * 2 * this.frame.hop_length) / rate).toFixed(0) + " ms";
      this.context = new AudioContext({ sampleRate: rate });
      const code = new Blob([get("worklet").textContent], { type: "text/javascript" });
      await this.context.audioWorklet.addModule(URL.createObjectURL(code));
      await this.context.resume();
      this.player = new AudioWorkletNode(this.context, "player",
        { numberOfInputs: 0, outputChannelCount: [1], processorOptions: { reserve: RESERVE_HOPS } });
      this.player.port.onmessage = ({ data }) => this.played(data);
      this.player.connect(this.context.destination);
      this.apply();
    }

    apply() {
      if (this.frame && !this.isEnding) this.socket.send(JSON.stringify(settings()));
    }

    async speak() {
      const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      const media = await navigator.mediaDevices.getUserMedia({ audio: plain });
      if (session !== this) return media.getTracks().forEach((track) => track.stop()); // stopped while the browser asked
      this.media = media;
      const collector = new AudioWorkletNode(this.context, "collector",
        { numberOfOutputs: 0, processorOptions: { hopLength: this.frame.hop_length } });
      collector.port.onmessage = ({ data }) => {
        if (this.isEnding) return;
        const waiting = this.sentAt.length;
        if (waiting > MAX_WAITING_HOPS) this.drop();
        else this.send(asInt16(data));
      };
      try {
        this.context.createMediaStreamSource(this.media).connect(collector);
      } catch (error) {
        if (error.name !== "NotSupportedError") throw error;
        throw new Error("This browser does not bring the microphone to 16 kHz (Firefox). Choose a recording, or use Chromium.");
      }
      say("Listening.");
    }

    async play(file) {
      if (file.size > MAX_FILE_BYTES) throw new Error("The recording is larger than 200 MB. Choose a shorter one.");
      const sound = await this.context.decodeAudioData(await file.arrayBuffer());
      if (session !== this) return; // another one was dropped meanwhile
      if (sound.duration > MAX_FILE_SECONDS) throw new Error("The recording is longer than 30 minutes. Choose a shorter one.");
      const mixed = new Float32Array(sound.length);
      for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
        sound.getChannelData(channel).forEach((x, i) => { mixed[i] += x / sound.numberOfChannels; });
      }
      this.samples = asInt16(mixed);
      say("Playing " + file.name);
      this.feed();
    }

    feed() { // a recording: as far as LEAD_HOPS ahead of what is heard
      const hop = this.frame.hop_length;
      while (this.samples && this.numSent - this.numPlayed < LEAD_HOPS * hop) {
        const rest = this.samples.length - this.numSent;
        if (rest <= 0) return this.end();
        const block = new Int16Array(hop);
        block.set(this.samples.subarray(this.numSent, this.numSent + hop));
        this.send(block, Math.min(rest, hop));
      }
    }

    send(hop, numKept = hop.length) {
      this.sentAt.push(performance.now());
      this.socket.send(hop.buffer);
      this.numSent += numKept;
      signals.in.take(hop.subarray(0, numKept), this.frame.sample_rate_hz);
    }

    receive(data) {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        if (message.error) return this.close(message.error, true);
        this.player.port.postMessage("complete");
        this.offer();
        document.body.dataset.state = "complete";
        if (this.media) this.close("Stopped.");
        return undefined;
      }
      if (!this.isEnding || this.sentAt.length) get("trip").textContent = (performance.now() - this.sentAt.shift()).toFixed(1) + " ms";
      const hop = new Int16Array(data).subarray(0, this.numSent - this.numHeard);
      if (!hop.length) return undefined;
      this.numHeard += hop.length;
      signals.out.take(hop, this.frame.sample_rate_hz);
      this.player.port.postMessage(Float32Array.from(hop, (x) => x / 32768));
      return undefined;
    }

    played({ event, numPlayed }) {
      if (event === "dropout" && !this.isEnding) this.drop();
      if (event === "end") this.close("Finished.");
      if (numPlayed === undefined) return;
      this.numPlayed = numPlayed;
      get("seconds").textContent = (numPlayed / this.frame.sample_rate_hz).toFixed(1) + " s";
      if (!this.isEnding) this.feed();
    }

    drop() {
      this.dropouts += 1;
      get("dropouts").textContent = this.dropouts;
    }

    end() { // the rest comes back, then the stream is complete
      if (this.isEnding) return;
      this.isEnding = true;
      this.socket.send(JSON.stringify({ is_finished: true }));
    }

    offer() {
      for (const signal of Object.values(signals)) signal.offer(this.frame.sample_rate_hz);
    }

    close(text, isError = false) {
      if (session !== this) return;
      session = null;
      if (this.media) this.media.getTracks().forEach((track) => track.stop());
      if (this.socket) { this.socket.onclose = null; this.socket.close(); }
      if (this.context) this.context.close();
      if (this.frame) this.offer();
      get("stop").disabled = true;
      document.body.dataset.state = isError ? "failed" : "finished";
      say(text, isError);
    }
  }

  async function begin(use) {
    if (session) session.close("Stopped.");
    const own = session = new Session();
    Object.values(signals).forEach((signal) => signal.clear());
    get("dropouts").textContent = "0";
    get("stop").disabled = false;
    document.body.dataset.state = "running";
    try {
      await own.open();
      if (session === own) await use(own);
    } catch (error) {
      own.close(error.name === "NotAllowedError" ? "The microphone was not allowed." : error.message, true);
    }
  }

  function open(files) {
    if (files.length && window.isSecureContext) begin((own) => own.play(files[0]));
  }

  if (!window.isSecureContext) { // no AudioWorklet and no microphone there
    for (const control of document.querySelectorAll("button, input")) control.disabled = true;
    say("Browsers give sound only to pages of their own machine or over HTTPS. Start lmkd-demo without --host; " +
      "from another machine, open it through an SSH tunnel, as lmkd-demo --help says.", true);
  }

  get("microphone").addEventListener("click", () => begin((own) => own.speak()));
  get("file").addEventListener("change", () => { open([...get("file").files]); get("file").value = ""; });
  get("stop").addEventListener("click", () => {
    if (session && session.media) session.end();
    else if (session) session.close("Stopped.");
  });
  for (const input of [limit, bypass]) {
    input.addEventListener("input", () => {
      settings();
      if (session) session.apply();
    });
  }
  const drop = get("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("is-over"); });
  document.addEventListener("dragleave", () => drop.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("is-over");
    open([...event.dataTransfer.files]);
  });
})();
