// The sessions of the demos: the page that shows each, and its body for `POST /v1/sessions`.

const players = (...names) => names.map((name) => ({participant_id: name}))

export const DEMOS = {
  blitz: {
    page: 'play',
    body: {
      sync_mode: 'per_participant', participants: players('white', 'black'), time_control: 'minutes:3+2',
      warn_at_ms: [20_000, 10_000], takeback_cycles: 20, metadata: {title: 'Blitz, 3+2'},
    },
  },
  go: {
    page: 'play',
    body: {
      sync_mode: 'per_participant', participants: players('black', 'white'), time_control: 'sgf:300 3x30 byo-yomi',
      warn_at_ms: [10_000], warn_scope: 'period', takeback_cycles: 20, metadata: {title: 'Go, 5 min and 3 × 30 s'},
    },
  },
  stage: {
    page: 'stage',
    body: {
      sync_mode: 'global', total_time_ms: 300_000, warn_at_ms: [60_000, 15_000], action_on_timeout: {type: 'notify'},
      metadata: {stage: {
        title: 'Main stage',
        items: {
          welcome: {place: 1, title: 'Welcome', speaker: 'Ada Lovelace', ms: 300_000, notes: 'Thank the sponsors.'},
          keynote: {place: 2, title: 'Keynote: keeping time', speaker: 'Grace Hopper', ms: 1_500_000, notes: ''},
          questions: {
            place: 3, title: 'Questions and answers', speaker: '', ms: 600_000, notes: 'Two microphones in the hall.',
          },
        },
        warn: {yellow_ms: 60_000, red_ms: 15_000},
      }},
    },
  },
  quiz: {
    page: 'quiz',
    body: {
      sync_mode: 'per_cycle', time_per_cycle_ms: 30_000, max_cycles: 3, warn_at_ms: [10_000],
      action_on_timeout: {type: 'notify'}, metadata: {title: 'Friday quiz', demo: true},
    },
  },
  auction: {
    page: 'auction',
    body: {
      sync_mode: 'global', total_time_ms: 180_000, warn_at_ms: [60_000, 10_000, 5_000],
      metadata: {
        lot: 17, title: 'Harbour at dusk, oil on canvas',
        note: 'Unsigned, about 1890. A bid in the last 20 seconds extends the lot to 20 seconds.',
        currency: 'EUR', price: 1000, bidder: null, step: 50, extend_to_ms: 20_000, hard_limit_ms: 600_000,
      },
    },
  },
  exam: {
    page: 'exam',
    body: {
      sync_mode: 'global', total_time_ms: 6_750_000, warn_at_ms: [1_800_000, 300_000], idle_timeout_s: 604_800,
      metadata: {
        title: 'Mathematics',
        groups: [{name: 'Standard', time_ms: 5_400_000}, {name: 'Extra time 25 %', time_ms: 6_750_000}],
        candidates: [{name: 'A-101', group: 'Standard'}, {name: 'A-102', group: 'Extra time 25 %'}],
      },
    },
  },
}
