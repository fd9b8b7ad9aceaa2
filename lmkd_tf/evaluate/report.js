"use strict";
// All versions of a clip start together, each through a gain of its own; switching
// moves the gains, so the position is kept to the sample.
(() => {
  const FADE_SECONDS = 0.015;
  document.documentElement.classList.add("has-script");
  let context = null;
  let current = null; // the clip that was touched last: the keys go to it

  function makeContext() {
    if (navigator.audioSession) navigator.audioSession.type = "playback"; // iOS: ignore the mute switch
    return new (window.AudioContext || window.webkitAudioContext)();
  }

  function bytesOf(uri) {
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  }

  const asTime = (seconds) => seconds.toFixed(1) + " s";

  class Clip {
    constructor(element) {
      this.element = element;
      this.panels = [...element.querySelectorAll(".panel")];
      this.audios = this.panels.map((panel) => panel.querySelector("audio"));
      this.buttons = [...element.querySelectorAll(".versions button")];
      this.playButton = element.querySelector(".play");
      this.slider = element.querySelector("input");
      this.output = element.querySelector("output");
      this.length = Number(element.dataset.seconds);
      this.offset = 0;
      this.chosen = 0;
      this.buffers = null;
      this.voices = [];
      this.isPlaying = false;
      this.numToggles = 0;
      this.playButton.addEventListener("click", () => this.toggle());
      this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
      this.buttons.forEach((button, index) => button.addEventListener("click", () => this.choose(index)));
      this.panels.forEach((panel, index) => {
        const picture = panel.querySelector(".picture");
        picture.addEventListener("click", (event) => {
          const box = picture.getBoundingClientRect();
          this.choose(index);
          this.seek(this.length * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
        });
      });
      this.choose(0);
      this.draw();
    }

    async toggle() {
      if (this.isPlaying) return this.pause();
      if (current && current !== this) current.pause();
      current = this;
      this.isPlaying = true;
      const own = this.numToggles += 1; // a pause or another start while this one waits ends it
      this.element.classList.add("is-playing");
      this.playButton.setAttribute("aria-label", "Pause");
      context = context || makeContext();
      await context.resume();
      if (!this.buffers) {
        this.buffers = await Promise.all(this.audios.map((audio) => context.decodeAudioData(bytesOf(audio.src))));
      }
      if (own !== this.numToggles) return;
      if (this.offset >= this.length - 0.02) this.offset = 0;
      this.start();
      this.follow();
    }

    start() {
      this.startTime = context.currentTime + 0.02;
      this.voices = this.buffers.map((buffer, index) => {
        const source = context.createBufferSource();
        const gain = context.createGain();
        source.buffer = buffer;
        gain.gain.value = index === this.chosen ? 1 : 0;
        source.connect(gain).connect(context.destination);
        source.start(this.startTime, this.offset);
        return { source, gain };
      });
    }

    stop() {
      this.voices.forEach((voice) => voice.source.stop());
      this.voices = [];
    }

    position() {
      const elapsed = this.voices.length ? Math.max(0, context.currentTime - this.startTime) : 0;
      return Math.min(this.length, this.offset + elapsed);
    }

    pause() {
      this.offset = this.position();
      this.stop();
      this.isPlaying = false;
      this.numToggles += 1;
      this.element.classList.remove("is-playing");
      this.playButton.setAttribute("aria-label", "Play");
      this.draw();
    }

    seek(seconds) {
      current = current && current.isPlaying ? current : this;
      const wasRunning = this.voices.length > 0;
      this.stop();
      this.offset = Math.min(this.length, Math.max(0, seconds));
      if (wasRunning) this.start();
      this.draw();
    }

    choose(index) {
      if (index >= this.panels.length) return;
      this.show(index);
      this.hear(index);
    }

    show(index) { // -1: none, during a blind test
      this.buttons.forEach((button, i) => {
        button.setAttribute("aria-checked", String(i === index));
        button.tabIndex = i === Math.max(index, 0) ? 0 : -1;
      });
      this.panels.forEach((panel, i) => panel.classList.toggle("is-chosen", i === index));
    }

    hear(index) {
      this.chosen = index;
      this.voices.forEach((voice, i) =>
        voice.gain.gain.setTargetAtTime(i === index ? 1 : 0, context.currentTime, FADE_SECONDS / 3));
    }

    follow() {
      if (!this.isPlaying) return;
      this.draw();
      if (this.position() >= this.length) return this.pause();
      requestAnimationFrame(() => this.follow());
    }

    draw() {
      const position = this.position();
      this.slider.value = position;
      this.output.textContent = asTime(position) + " / " + asTime(this.length);
      this.panels.forEach((panel) => {
        panel.querySelector(".head").style.left = (100 * position) / this.length + "%";
      });
    }
  }

  // Is X the same as A or as B? X is drawn anew after every answer.
  class BlindTest {
    constructor(clip, element) {
      this.clip = clip;
      this.element = element;
      this.selects = [...element.querySelectorAll("select")];
      this.hearButtons = [...element.querySelectorAll("[data-hear]")];
      this.answerButtons = [...element.querySelectorAll("[data-answer]")];
      this.output = element.querySelector("output");
      this.selects.forEach((select) => select.addEventListener("change", () => this.restart()));
      this.hearButtons.forEach((b) => b.addEventListener("click", () => this.hear(b.dataset.hear)));
      this.answerButtons.forEach((b) => b.addEventListener("click", () => this.answer(b.dataset.answer)));
      element.addEventListener("toggle", () => element.open && this.restart());
      element.addEventListener("keydown", (event) => {
        if (!element.open || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
        const letter = event.key.toUpperCase();
        if (!"ABX".includes(letter) || letter.length !== 1 || event.target.tagName === "SELECT") return;
        this.hear(letter);
        event.preventDefault();
      });
    }

    restart() {
      this.numRight = this.numAnswers = 0;
      this.draw();
      this.output.textContent = "Hear X, then answer.";
    }

    draw() {
      this.hidden = crypto.getRandomValues(new Uint8Array(1))[0] % 2;
      this.answerButtons.forEach((button) => { button.disabled = true; });
    }

    hear(letter) {
      this.hearButtons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.hear === letter)));
      const which = letter === "X" ? this.hidden : "AB".indexOf(letter);
      this.clip.show(-1);
      this.clip.hear(this.selects[which].selectedIndex);
      if (letter === "X") this.answerButtons.forEach((button) => { button.disabled = false; });
      if (!this.clip.isPlaying) this.clip.toggle();
    }

    answer(letter) {
      const right = "AB"[this.hidden];
      this.numAnswers += 1;
      this.numRight += Number(letter === right);
      this.output.textContent = `X was ${right}. ${this.numRight} of ${this.numAnswers} right; by guessing, ` +
        `that many or more come with probability ${chance(this.numRight, this.numAnswers).toFixed(3)}.`;
      this.hearButtons.forEach((b) => b.setAttribute("aria-pressed", "false"));
      this.draw();
    }
  }

  function chance(numRight, numAnswers) {
    let ways = 1, sum = 0;
    for (let k = 0; k <= numAnswers; k += 1) {
      if (k >= numRight) sum += ways;
      ways = (ways * (numAnswers - k)) / (k + 1);
    }
    return sum / 2 ** numAnswers;
  }

  const clips = [...document.querySelectorAll(".clip")].map((element) => new Clip(element));
  current = clips[0] || null;
  clips.forEach((clip) => {
    const element = clip.element.querySelector(".blind");
    if (element) new BlindTest(clip, element);
  });
  clips.forEach((clip) => clip.element.addEventListener("focusin", () => {
    if (!current || !current.isPlaying) current = clip;
  }));

  document.addEventListener("keydown", (event) => {
    if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
    const tag = event.target.tagName;
    if (tag === "SELECT") return;
    if (event.key >= "1" && event.key <= "9") {
      current.choose(Number(event.key) - 1);
    } else if (event.key === " " && !["BUTTON", "SUMMARY", "A"].includes(tag)) {
      if (!event.repeat) current.toggle();
      event.preventDefault(); // a held key must not scroll either
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && tag !== "INPUT") {
      if (event.target.closest?.(".scroll")) return; // a wide table scrolls
      const step = event.key === "ArrowRight" ? 1 : -1;
      const owner = clips.find((clip) => clip.buttons.includes(event.target));
      if (owner) { // as in any group of radio buttons
        const next = (owner.chosen + step + owner.buttons.length) % owner.buttons.length;
        owner.choose(next);
        owner.buttons[next].focus();
      } else {
        current.seek(current.position() + step);
      }
      event.preventDefault();
    }
  });
})();
