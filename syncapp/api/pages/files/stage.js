// The page /stage: a timer for conferences and shows. Who may control the session gets the operator's page, everybody
// else a screen; `?view=1` and `?overlay=1` always make screens. docs/pages.md explains the parameters.

import {byId, fillTexts, openPage} from './page.js'
import {runOperator} from './stage-operator.js'
import {readOverlay} from './stage-overlay.js'
import {runViewer} from './stage-viewer.js'

const {game, access} = openPage()
fillTexts()
if (game) {
  const overlay = readOverlay(location.search)
  const isOperator = access.mayControl && !access.isView && !overlay
  byId(isOperator ? 'operator' : 'viewer').hidden = false
  if (isOperator) runOperator(game, access)
  else runViewer(game, overlay)
}
