// What a quiz's state means, and questions as text. No page is needed here.

const MOST_OPTIONS = 8
const LONGEST_QUESTION = 400
const LONGEST_OPTION = 150

/** Whether a host leads the quiz: at zero (`notify`) the next question does not begin by itself. */
export function isHosted(state) {
  return state.action_on_timeout.type === 'notify'
}

/**
 * The question that counts now: {index, total, text, options, solution}; total and solution are null while unknown.
 *
 * A host publishes `metadata.current` just before the switch that begins its time, so it counts only with the cycle
 * that it names. A quiz without a host has all questions in `metadata.questions`.
 */
export function questionOf(state) {
  const {metadata, cycle_count: index, max_cycles: most} = state
  const all = Array.isArray(metadata.questions) ? metadata.questions : []
  const given = metadata.current?.index === index ? metadata.current : all[index] ?? (isHosted(state) ? null : '')
  if (given === null) return null
  const text = typeof given === 'object' ? given.text : given
  const options = Array.isArray(given.options) ? given.options.map(String) : []
  const total = metadata.total ?? most ?? (all.length || null)
  return {index, total, text: String(text ?? ''), options, solution: metadata.solutions?.[index] ?? null}
}

/** What may happen: `waiting`, `open` (for answers), `paused`, `locked`, `revealed` or `over`. leftMs: of the clock. */
export function phaseOf(state, leftMs) {
  const question = questionOf(state)
  switch (state.status) {
    case 'pending': return 'waiting'
    case 'running': case 'paused': break
    default: return 'over'
  }
  if (!question) return 'waiting'
  if (question.solution !== null) return 'revealed'
  if (state.status === 'paused') return 'paused'
  return leftMs !== null && leftMs > 0 ? 'open' : 'locked'
}

/** How many of the answers are right: {right, of}, `of` being the number of questions that are solved. */
export function scoreOf(state, answers) {
  const solutions = state.metadata.solutions ?? []
  const solved = solutions.map((solution, index) => ({solution, answer: answers[index]}))
    .filter(({solution}) => solution !== null)
  return {right: solved.filter(({solution, answer}) => solution === answer).length, of: solved.length}
}

/** The letter of an option: A, B, … */
export function letterOf(index) {
  return String.fromCharCode(65 + index)
}

/**
 * Questions from text: blocks with an empty line between them, each a question and its options, a line each; the right
 * option begins with `*`. Returns {questions: [{text, options, solution}], fault}: the number of the first block that
 * is not a question, or null.
 */
export function parseQuestions(source) {
  const linesOf = (block) => block.split('\n').map((line) => line.trim()).filter(Boolean)
  const blocks = source.replace(/\r/g, '').split(/\n\s*\n/).map(linesOf)
  const questions = blocks.filter((lines) => lines.length).map(([text, ...lines]) => ({
    text: text.slice(0, LONGEST_QUESTION),
    options: lines.map((line) => line.replace(/^\*\s*/, '').slice(0, LONGEST_OPTION)),
    solution: lines.findIndex((line) => line.startsWith('*')),
    stars: lines.filter((line) => line.startsWith('*')).length,
  }))
  const isBad = ({options, stars}) =>
    options.length < 2 || options.length > MOST_OPTIONS || stars !== 1 || options.includes('')
  const bad = questions.findIndex(isBad)
  return {questions: questions.map(({stars: _, ...question}) => question), fault: bad < 0 ? null : bad + 1}
}

export const DEMO_QUESTIONS = `Which planet has the shortest day?
Earth
* Jupiter
Mars
Venus

How many keys does a modern piano have?
66
76
* 88
96

What is the capital of Australia?
Sydney
Melbourne
* Canberra
Perth`
