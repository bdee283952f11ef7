// Starts Swagger UI with the configuration that the server put into the page.
"use strict";

const {config} = document.getElementById("swagger-ui").dataset;
window.ui = SwaggerUIBundle({...JSON.parse(config), presets: [SwaggerUIBundle.presets.apis]});
