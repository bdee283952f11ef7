// Sounds, made in the browser: a tap, a beep in each of the last seconds, a flag. And speech, if it is wanted.

const KEY = 'syncapp.sound'
let audio = null, isOn = localStorage.getItem(KEY) !== 'off', isSpeaking = false

/** Whether sounds are on. */
export const soundIsOn = () => isOn

/** Turns sounds on or off; kept for the next time. */
export function setSound(on) {
  isOn = on
  localStorage.setItem(KEY, on ? 'on' : 'off')
  if (on) unlockSound()
}

/** Browsers allow sounds only after a press: call it in one. */
export function unlockSound() {
  if (!isOn || !('AudioContext' in window)) return
  audio ??= new AudioContext()
  if (audio.state === 'suspended') audio.resume().catch(() => {})
}

function tone(frequency, seconds, {after = 0, volume = .2, type = 'sine', end = frequency} = {}) {
  if (!isOn || audio?.state !== 'running') return
  const from = audio.currentTime + after, source = audio.createOscillator(), gain = audio.createGain()
  source.type = type
  source.frequency.setValueAtTime(frequency, from)
  source.frequency.exponentialRampToValueAtTime(end, from + seconds)
  gain.gain.setValueAtTime(volume, from)
  gain.gain.exponentialRampToValueAtTime(.001, from + seconds)
  source.connect(gain).connect(audio.destination)
  source.start(from)
  source.stop(from + seconds)
}

export const playTap = () => tone(900, .05, {type: 'triangle', volume: .3, end: 400})

export const playBeep = () => tone(880, .12)

export function playFlag() {
  tone(660, .25)
  tone(440, .5, {after: .25})
}

/** Whether the page can speak. */
export const canSpeak = () => 'speechSynthesis' in window

export const speechIsOn = () => isSpeaking

export function setSpeech(on) {
  isSpeaking = on
  if (!on && canSpeak()) speechSynthesis.cancel()
}

/** Speaks a text at once, if speech is on. */
export function speak(text) {
  if (!isSpeaking || !canSpeak()) return
  speechSynthesis.cancel()
  const said = new SpeechSynthesisUtterance(text)
  said.lang = 'en'
  speechSynthesis.speak(said)
}
