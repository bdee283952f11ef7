// The page of one lot: for the auctioneer, for bidders (with AUTH=off), and for everybody who watches.

import {timeText} from '/sdk/syncapp.js'
import {BidRefused, lotOf, lowestBid, makeBid, outcomeOf} from './auction-rules.js'
import {keepAwake, onKeys} from './display.js'
import {
  act, announce, byId, confirmDialog, connectionBanner, everyFrame, fillTexts, make, openPage, setText, shareDialog,
  toast,
} from './page.js'
import {auction as texts} from './texts.js'

const EXTEND_MS = 30_000
const NAME_KEY = 'syncapp.bidder'
const COLOURS = {running: 'good', sold: 'good', paused: 'warn', withdrawn: 'danger'}
const query = new URLSearchParams(location.search)

fillTexts()
const {game, access} = openPage()
if (game) run()

function run() {
  // A bid is a change of the metadata, which only `session:control` may make: so whoever bids may do everything.
  const isBidder = access.isOpen && !access.isView && query.get('bid') === '1'
  const isAuctioneer = access.mayControl && !isBidder
  const mayBid = isBidder || isAuctioneer
  let extendedUntil = 0, called = ''

  connectionBanner(game)
  keepAwake()
  game.on('change', ({state, event}) => {
    show(state)
    if (event) tell(state, event)
  })
  game.on('status', () => game.state && show(game.state))
  everyFrame(frame)
  if (mayBid) prepareBids()
  if (isAuctioneer) prepareControls()

  function money(amount) {
    const digits = new Intl.NumberFormat('en').format(amount)
    const {currency} = lotOf(game.state)
    return currency ? `${digits} ${currency}` : digits
  }

  function show(state) {
    const lot = lotOf(state), outcome = outcomeOf(state)
    byId('page').hidden = false
    byId('page').dataset.status = outcome ?? state.status
    byId('page').classList.toggle('watching', !mayBid)
    byId('page').classList.toggle('single', !mayBid || outcome !== null)
    byId('time-label').hidden = outcome !== null
    document.title = lot.title || texts.pageTitle
    setText(byId('title'), lot.title || texts.pageTitle)
    setText(byId('note'), lot.note)
    byId('number').hidden = lot.number === null
    setText(byId('number'), texts.lot(lot.number))
    setText(byId('status'), texts.status[outcome ?? state.status])
    byId('status').className = `badge ${COLOURS[outcome ?? state.status] ?? ''}`
    const priceLabel = lot.bidder === null ? texts.startPrice : texts.price
    setText(byId('price-label'), outcome === 'sold' ? texts.soldFor : priceLabel)
    setText(byId('price'), money(lot.price))
    const leader = outcome === 'sold' ? texts.soldTo(lot.bidder) : texts.leads(lot.bidder)
    setText(byId('bidder'), lot.bidder === null ? texts.nobody : leader)
    byId('no-bids').hidden = lot.bids.length > 0
    showBids(lot)
    if (mayBid) showForm(state, lot)
    if (isAuctioneer) showControls(state, lot)
  }

  function showBids({bids, count}) {
    const list = byId('bids')
    list.start = count
    list.replaceChildren(...bids.map(({bidder, price}) => {
      const who = make('span', {className: 'who', textContent: bidder})
      return make('li', {}, who, make('span', {className: 'digits', textContent: money(price)}))
    }))
  }

  function frame() {
    const {state} = game
    if (!state) return
    const left = game.remaining(), outcome = outcomeOf(state), isLive = state.status === 'running'
    setText(byId('time'), outcome ? texts.closed : timeText(left === null ? null : Math.max(0, left)))
    setText(byId('extended'), isLive && performance.now() < extendedUntil ? texts.extended : '')
    const call = outcome ? texts.call[outcome] : isLive && left !== null ? calledAt(left) : ''
    byId('call').hidden = !call
    setText(byId('call'), call)
    byId('page').classList.toggle('last', isLive && left !== null && left <= 10_000)
    if (isLive && call && call !== called) announce(call, {assertive: true})
    called = call
  }

  /** The last two warnings are the calls of an auctioneer, if there is a bid. */
  function calledAt(left) {
    const [twice, once] = [...(game.state.warn_at_ms ?? [])].sort((a, b) => a - b)
    if (lotOf(game.state).bidder === null) return ''
    if (twice !== undefined && left <= twice) return texts.call.twice
    return once !== undefined && left <= once ? texts.call.once : ''
  }

  function tell(state, event) {
    const lot = lotOf(state)
    if (event.type === 'time_adjusted' && event.adjusted_ms > 0) extendedUntil = performance.now() + 4_000
    if (event.type === 'metadata_updated' && lot.bidder !== null) announce(texts.newBid(money(lot.price), lot.bidder))
    const {type, remaining_ms: left} = event
    if (type === 'time_warning' && !calledAt(left)) announce(texts.warning(timeText(left)))
    const outcome = outcomeOf(state)
    if (outcome) announce(texts.call[outcome], {assertive: true})
  }

  // Bids.

  function prepareBids() {
    byId('bid').hidden = false
    byId('bid').classList.toggle('own', isBidder)
    setText(byId('bid-title'), isBidder ? texts.yourBid : texts.roomBid)
    setText(byId('name-label'), isBidder ? texts.yourName : texts.bidderName)
    setText(byId('amount-label'), texts.amount)
    if (isBidder) {
      byId('name').value = sessionStorage.getItem(NAME_KEY) ?? access.participant ?? ''
      byId('name').addEventListener('input', () => sessionStorage.setItem(NAME_KEY, byId('name').value.trim()))
    }
    byId('amount').addEventListener('input', () => { byId('amount').dataset.typed = 'yes'; label() })
    byId('bid').addEventListener('submit', place)
  }

  function showForm(state, lot) {
    const lowest = lowestBid(lot), amount = byId('amount')
    // An amount that was typed stays, unless it is too low by now.
    if (!amount.dataset.typed || Number(amount.value) < lowest) {
      amount.value = String(lowest)
      delete amount.dataset.typed
    }
    byId('place').disabled = state.status !== 'running' || game.status !== 'live'
    byId('bid').hidden = outcomeOf(state) !== null
    const names = isAuctioneer ? new Set(lot.bids.map(({bidder}) => bidder)) : []
    byId('names').replaceChildren(...[...names].map((value) => make('option', {value})))
    byId('quick').replaceChildren(...[0, 1, 4].map((steps) => quickButton(lowest + steps * lot.step)))
    label()
    const mine = isBidder ? byId('name').value.trim() : ''
    setText(byId('bid-hint'), hint(state, lot, mine))
    byId('bid').dataset.mine = mine && lot.bidder === mine ? 'leads' : ''
  }

  function hint({status}, lot, mine) {
    const price = money(lowestBid(lot))
    if (status !== 'running') return texts.notOpen[status] ?? ''
    if (!lot.bids.some(({bidder}) => bidder === mine)) return texts.from(price)
    return lot.bidder === mine ? texts.youLead : texts.youAreOutbid(price)
  }

  function quickButton(amount) {
    const textContent = new Intl.NumberFormat('en').format(amount)
    const button = make('button', {type: 'button', className: 'button', textContent, 'aria-label': money(amount)})
    button.addEventListener('click', () => {
      byId('amount').value = String(amount)
      byId('amount').dataset.typed = 'yes'
      label()
    })
    return button
  }

  function label() {
    const amount = Number(byId('amount').value)
    setText(byId('place'), amount > 0 ? texts.place(money(amount)) : texts.placeNothing)
  }

  async function place(event) {
    event.preventDefault()
    const bidder = byId('name').value.trim(), price = Number(byId('amount').value), button = byId('place')
    if (!bidder) return byId('name').focus()
    if (!Number.isSafeInteger(price) || price <= 0) return toast(texts.wholeNumber)
    if (button.disabled) return
    button.disabled = true
    delete byId('amount').dataset.typed
    try {
      await act(makeBid(game, {bidder, price}).catch((error) => {   // the page itself shows a bid that was accepted
        if (!(error instanceof BidRefused)) throw error
        toast(error.why === 'outbid' ? texts.outbid(money(lowestBid(lotOf(game.state)))) : texts.notOpen[error.why])
      }))
    } finally {
      if (isAuctioneer) byId('name').value = ''
      show(game.state)
    }
  }

  // The auctioneer.

  function prepareControls() {
    byId('controls').hidden = byId('keys').hidden = false
    byId('start').addEventListener('click', () => act(game.start()))
    byId('pause').addEventListener('click', pauseOrResume)
    byId('extend').addEventListener('click', () => {
      act(game.adjust({op: 'add', ms: EXTEND_MS, reason: texts.byAuctioneer}))
    })
    byId('hammer').addEventListener('click', hammer)
    byId('withdraw').addEventListener('click', withdraw)
    byId('share').hidden = !access.mayShare
    byId('share').addEventListener('click', share)
    onKeys({
      ' ': () => (game.state?.status === 'pending' ? byId('start') : byId('pause')).click(),
      '+': () => byId('extend').click(),
      h: () => byId('hammer').click(),
      b: () => byId('name').focus(),
    })
  }

  function showControls({status}, lot) {
    const isLive = ['running', 'paused'].includes(status), isOff = game.status !== 'live'
    byId('controls').hidden = !isLive && status !== 'pending'
    byId('keys').hidden = byId('controls').hidden
    for (const [id, isShown] of Object.entries({
      start: status === 'pending', pause: isLive, extend: isLive, hammer: isLive && lot.bidder !== null,
      withdraw: isLive || status === 'pending',
    })) {
      byId(id).hidden = !isShown
      byId(id).disabled = isOff
    }
    setText(byId('pause'), status === 'paused' ? texts.resume : texts.pause)
  }

  function pauseOrResume() {
    const {status} = game.state
    if (status === 'running') act(game.pause())
    else if (status === 'paused') act(game.resume())
  }

  /** Closes the lot at the price that the auctioneer has seen: a bid that comes before makes another version. */
  async function hammer() {
    const {version, epoch} = game.state, {bidder, price} = lotOf(game.state)
    if (bidder === null) return
    const title = texts.hammerTitle(bidder, money(price))
    if (!await confirmDialog({title, text: texts.hammerText, confirm: texts.hammerGo})) return
    const result = {winner: bidder, price}
    const claim = {expectedVersion: version, expectedEpoch: epoch}
    await act(game.complete({reason: 'hammer', result, ...claim}).catch((error) => {
      if (error.code !== 'CONFLICT') throw error
      toast(texts.hammerLate)
    }))
  }

  async function withdraw() {
    const {withdrawTitle: title, withdrawText: text, withdrawGo: confirm} = texts
    const answer = await confirmDialog({title, text, confirm, danger: true, reason: true})
    if (answer) await act(game.cancel(answer.reason ? {reason: answer.reason} : {}))
  }

  function share() {
    const viewers = {label: texts.forViewers, page: 'auction', scope: 'session:watch', view: true}
    const bidders = {label: texts.forBidders, page: 'auction', scope: 'session:control', query: {bid: '1'}}
    const auctioneers = {label: texts.forAuctioneer, page: 'auction', scope: 'session:control'}
    return shareDialog(game, access, access.isOpen ? [viewers, bidders, auctioneers] : [viewers, auctioneers])
  }
}
