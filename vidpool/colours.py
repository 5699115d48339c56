"""The colours of charts: those of Okabe and Ito, which colour-blind people can tell apart."""

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, AMBER, PINK = "#D55E00", "#E69F00", "#CC79A7"
GREY, BLACK = "#999999", "#000000"
