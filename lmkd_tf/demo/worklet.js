// Runs beside the page on the audio thread: collects hops of the microphone, plays hops that came back.
class Collector extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.hop = new Float32Array(options.processorOptions.hopLength);
    this.filled = 0;
  }

  process(inputs) {
    for (const sample of inputs[0][0] || []) {
      this.hop[this.filled++] = sample;
      if (this.filled === this.hop.length) {
        this.port.postMessage(this.hop.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

class Player extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.reserve = options.processorOptions.reserve; // hops to hold before playing
    this.queue = [];
    this.position = 0;
    this.numPlayed = 0;
    this.isPlaying = false;
    this.isEnded = false;
    this.isComplete = false; // nothing more will come, so running empty is no dropout
    this.port.onmessage = ({ data }) => {
      if (data === "complete") this.isComplete = true;
      else this.queue.push(data);
    };
  }

  process(_, outputs) {
    const output = outputs[0][0];
    if (!this.isPlaying) this.isPlaying = this.queue.length >= (this.isComplete ? 1 : this.reserve);
    for (let i = 0; this.isPlaying && i < output.length; i += 1) {
      while (this.queue.length && this.position >= this.queue[0].length) {
        this.numPlayed += this.queue.shift().length;
        this.position = 0;
      }
      if (this.queue.length) output[i] = this.queue[0][this.position++];
      else this.isPlaying = this.stop();
    }
    if (this.isComplete && !this.queue.length && !this.isEnded) this.isEnded = this.end();
    this.port.postMessage({ numPlayed: this.numPlayed + this.position });
    return true;
  }

  stop() {
    if (!this.isComplete) this.port.postMessage({ event: "dropout" });
    return false;
  }

  end() {
    this.port.postMessage({ event: "end" });
    return true;
  }
}

registerProcessor("collector", Collector);
registerProcessor("player", Player);
