#version 330
// A room out of focus: window on the left, lamp and shelf on the right.
in vec2 q; out vec4 colour;
float box(vec2 at, vec2 half_size, float blur) {
    vec2 d = abs(q - at) - half_size;
    return smoothstep(blur, -blur, d.x) * smoothstep(blur, -blur, d.y);
}
float glow(vec2 at, float size) { vec2 d = (q - at) / size; return exp(-dot(d, d)); }
void main() {
    vec3 c = mix(vec3(.495, .455, .415), vec3(.36, .325, .30), smoothstep(-.9, 1.2, length(q - vec2(-.5, .4)) - .6));
    // Shelf with books and a plant, far behind.
    c = mix(c, vec3(.335, .265, .215), box(vec2(.74, .26), vec2(.34, .030), .06) * .75);
    c = mix(c, vec3(.33, .37, .39), box(vec2(.56, .43), vec2(.040, .13), .06) * .50);
    c = mix(c, vec3(.55, .40, .31), box(vec2(.66, .41), vec2(.034, .11), .06) * .55);
    c = mix(c, vec3(.62, .56, .47), box(vec2(.745, .44), vec2(.030, .14), .06) * .50);
    c = mix(c, vec3(.30, .36, .28), glow(vec2(.95, .52), .17) * .70);
    // Window.
    float window = box(vec2(-.93, .34), vec2(.24, .62), .13);
    c = mix(c, vec3(.90, .915, .92), window * .68);
    c = mix(c, vec3(.66, .655, .64), window * box(vec2(-.90, .34), vec2(.012, .8), .07) * .55);
    c = mix(c, vec3(.66, .655, .64), window * box(vec2(-.93, .40), vec2(.4, .010), .07) * .55);
    c += vec3(.13, .14, .145) * glow(vec2(-.85, .35), .75);
    // Lamp.
    c += vec3(.30, .195, .085) * glow(vec2(.86, -.06), .55);
    c = mix(c, vec3(1., .86, .63), box(vec2(.86, -.07), vec2(.085, .085), .10) * .85);
    // Sideboard.
    c = mix(c, vec3(.255, .205, .175), smoothstep(-.42, -.62, q.y) * .55);
    c += vec3(.10, .06, .02) * glow(vec2(.86, -.52), .30);
    float dither = fract(sin(dot(gl_FragCoord.xy, vec2(12.9898, 78.233))) * 43758.5453);
    colour = vec4(c + (dither - .5) / 255., 1);
}
