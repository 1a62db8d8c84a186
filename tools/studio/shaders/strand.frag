#version 330
in vec4 lit_colour; out vec4 colour;
void main() { colour = lit_colour; }
